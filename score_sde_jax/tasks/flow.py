"""Tasks of the probability flow ODE: reconstruction of images from their latents, and interpolation."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Num

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import ode
from score_sde_jax.diffusion.guidance import Images, Keys
from score_sde_jax.errors import UserError
from score_sde_jax.ranges import Positive, Range
from score_sde_jax.samplers import Sampler, Samples, decode, encode, interpolate
from score_sde_jax.tasks.observed import ObservedInputs, in_rows
from score_sde_jax.tasks.task import Grid, Indices, InputArrays, Networks, Strips, Task, TaskSetup

GRAY_LEVELS = 255.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction(Task):
    """Encoding of observed images to latents and decoding, by the probability flow ODE; independent of the sampler.

    Attributes:
        source: path of the observed images (an image, folder, zip or npz file); by default the test split of the run's
            data.
        rtol: relative tolerance of the adaptive solver, > 0.
        atol: absolute tolerance of the adaptive solver, > 0.
        max_evaluations: limit of the network evaluations of one solution (encoding or decoding).

    Reference: arXiv 2011.13456, Section 4.3.
    """

    observations: ClassVar[int] = 1
    source: str | None = None
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    max_evaluations: ode.Evaluations = 10000

    def __post_init__(self) -> None:
        ode.check_options(rtol=self.rtol, atol=self.atol, max_evaluations=self.max_evaluations)

    def inputs(self, setup: TaskSetup) -> ObservedInputs:
        """Return the observed images."""
        return ReconstructionInputs(setup, self.source)

    def latents(self, first: Images, second: Images | None, inputs: InputArrays) -> Images:
        """Return the latents to decode.

        Args:
            first: latents of the first observed images.
            second: latents of the second observed images, if there are two per image.
            inputs: input arrays, one row per image.
        """
        del second, inputs
        return first

    def sample(self, sampler: Sampler, networks: Networks, keys: Keys, like: Images, inputs: InputArrays) -> Samples:
        """Decode latents of the observed images; a pure function, see `Task.sample`.

        Returns:
            Images, NaN where a solution did not converge, and the network evaluations of all solutions of an image.
        """
        del keys
        options = dict(rtol=self.rtol, atol=self.atol, max_evaluations=self.max_evaluations)
        sde, noise_fn = sampler.sde, networks.noise_fn
        solutions = [encode(sde, noise_fn, inputs["observed"][:, i], **options) for i in range(self.observations)]
        latents = self.latents(solutions[0].state, solutions[1].state if len(solutions) > 1 else None, inputs)
        solutions.append(decode(sde, noise_fn, latents, **options))
        converged = jnp.all(jnp.stack([solution.converged for solution in solutions]), axis=0)
        images = jnp.where(prng.bcast(converged, like), solutions[-1].state, jnp.nan)
        nfe = jnp.sum(jnp.stack([solution.nfe for solution in solutions]), axis=0)
        return Samples(images, images[None], nfe)


class ReconstructionInputs(ObservedInputs):
    """Observed images; the mean absolute error of each image is saved as `errors`, in units of 1/255 of the range."""

    def source_indices(self, indices: Indices) -> Int[np.ndarray, "batch 1"]:
        """Return the indices: image i reconstructs observed image i."""
        return indices[:, None]

    def extras(self, indices: Indices, images: Num[np.ndarray, "batch ..."], key: Array) -> dict[str, np.ndarray]:
        """Return the `errors`."""
        low, high = self.setup.pixels.ends
        errors = np.abs(images - self.observed(indices)[:, 0]).mean(axis=tuple(range(1, images.ndim)))
        return {"errors": GRAY_LEVELS / (high - low) * errors}

    def lines(self, extras: Mapping[str, np.ndarray]) -> list[str]:
        """Return the mean error over all images."""
        return [f"mean absolute error of the round trip: {extras['errors'].mean():.3g} of 255 gray levels"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolation(Reconstruction):
    """Interpolation of two observed images along the great circle between their latents.

    Attributes:
        num_between: interpolated images per pair, >= 1. A row of num_between + 2 images has the reconstructions of both
            ends too; row r goes from observed image 2 r to 2 r + 1.

    Reference: arXiv 2011.13456, Section 4.3.
    """

    observations: ClassVar[int] = 2
    num_between: Annotated[int, Range(1, 2**10)] = 6

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError if the data are points or no image is between the ends."""
        super().check(image_shape)
        if self.num_between < 1:
            raise UserError(f"--config.task.num_between={self.num_between}: must be >= 1")

    def inputs(self, setup: TaskSetup) -> ObservedInputs:
        """Return the two observed images of each row, and the positions of the images between them."""
        return InterpolationInputs(setup, self.source, self.num_between + 2)

    def latents(self, first: Images, second: Images | None, inputs: InputArrays) -> Images:
        """Return the latents at inputs["fraction"] of the great circle from `first` to `second`."""
        assert second is not None

        def between(first: Array, second: Array, fraction: Array) -> Array:
            return interpolate(first[None], second[None], fraction[None])[0, 0]

        return jax.vmap(between)(first, second, inputs["fraction"])


class InterpolationInputs(ObservedInputs):
    """Two observed images, and input "fraction" (batch,), from 0 (first image) to 1 (second image)."""

    def __init__(self, setup: TaskSetup, source: str | None, length: int) -> None:
        super().__init__(setup, source)
        self.length = length

    def source_indices(self, indices: Indices) -> Int[np.ndarray, "batch 2"]:
        """Return 2 r and 2 r + 1 for the images of row r."""
        row = indices // self.length
        return np.stack([2 * row, 2 * row + 1], axis=1)

    def __call__(self, indices: Indices) -> dict[str, np.ndarray]:
        """Return the observed images and fractions of the images with these indices."""
        fraction = (indices % self.length / (self.length - 1)).astype(np.float32)
        return super().__call__(indices) | {"fraction": fraction}

    def pictures(self, stored: np.ndarray, extras: Mapping[str, np.ndarray]) -> dict[str, Grid | Strips]:
        """Return one strip per row."""
        return {"interpolation.png": Strips(in_rows(stored, self.length), columns=1)}
