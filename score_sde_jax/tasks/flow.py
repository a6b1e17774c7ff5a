"""Tasks along the probability flow: images to their latents and back, and from image to image."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Num

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import ode
from score_sde_jax.diffusion.guidance import Images, Keys
from score_sde_jax.errors import UserError
from score_sde_jax.samplers import Sampler, Samples, decode, encode, interpolate
from score_sde_jax.tasks.observed import Observed, in_rows
from score_sde_jax.tasks.task import Given, Grid, Indices, Networks, Setup, Strips, Task

GRAY_LEVELS = 255.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction(Task):
    """Observed images go to their latents and back by the probability flow, whatever section `sampler` says.

    source: as for inpainting; rtol, atol, max_evaluations: of the adaptive solver, one way.
    """

    observations: ClassVar[int] = 1
    source: str | None = None
    rtol: float = 1e-5
    atol: float = 1e-5
    max_evaluations: int = 10000

    def __post_init__(self) -> None:
        ode.check_options(rtol=self.rtol, atol=self.atol, max_evaluations=self.max_evaluations)

    def inputs(self, setup: Setup) -> Observed:
        """The observed images."""
        return Reconstructed(setup, self.source)

    def latents(self, first: Images, second: Images | None, given: Given) -> Images:
        """What is decoded, from the latents of the observed images."""
        del second, given
        return first

    def sample(self, sampler: Sampler, networks: Networks, keys: Keys, like: Images, given: Given) -> Samples:
        """Decoded latents, and the evaluations of all ways; not a number where one was not found."""
        del keys
        options = dict(rtol=self.rtol, atol=self.atol, max_evaluations=self.max_evaluations)
        sde, noise_fn = sampler.sde, networks.noise_fn
        ways = [encode(sde, noise_fn, given["observed"][:, i], **options) for i in range(self.observations)]
        latents = self.latents(ways[0].state, ways[1].state if len(ways) > 1 else None, given)
        ways.append(decode(sde, noise_fn, latents, **options))
        found = jnp.all(jnp.stack([way.converged for way in ways]), axis=0)
        images = jnp.where(prng.bcast(found, like), ways[-1].state, jnp.nan)
        return Samples(images, images[None], jnp.sum(jnp.stack([way.nfe for way in ways]), axis=0))


class Reconstructed(Observed):
    """Observed images, and beside the images the mean absolute error of each, in gray levels of 255."""

    def numbers(self, indices: Indices) -> Int[np.ndarray, "batch 1"]:
        """Image number i reconstructs image i."""
        return indices[:, None]

    def extras(self, indices: Indices, images: Num[np.ndarray, "batch ..."], key: Array) -> dict[str, np.ndarray]:
        """The `errors`."""
        low, high = self.setup.pixels.ends
        errors = np.abs(images - self.observed(indices)[:, 0]).mean(axis=tuple(range(1, images.ndim)))
        return {"errors": GRAY_LEVELS / (high - low) * errors}

    def lines(self, extras: Mapping[str, np.ndarray]) -> list[str]:
        """The mean error of all images."""
        return [f"mean absolute error of the round trip: {extras['errors'].mean():.3g} of 255 gray levels"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolation(Reconstruction):
    """Images on the great circle between the latents of two observed images, by the probability flow.

    num_between: images between the two; row r of the num_between + 2 images of a row goes from observed image 2 r to
    2 r + 1.
    """

    observations: ClassVar[int] = 2
    num_between: int = 6

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError where the task makes no sense for images of this shape."""
        super().check(image_shape)
        if self.num_between < 1:
            raise UserError(f"--config.task.num_between={self.num_between}: at least 1")

    def inputs(self, setup: Setup) -> Observed:
        """The two observed images of each row, and how far an image is on its way."""
        return Between(setup, self.source, self.num_between + 2)

    def latents(self, first: Images, second: Images | None, given: Given) -> Images:
        """What is decoded, from the latents of the observed images."""
        assert second is not None

        def between(first: Array, second: Array, fraction: Array) -> Array:
            return interpolate(first[None], second[None], fraction[None])[0, 0]

        return jax.vmap(between)(first, second, given["fraction"])


class Between(Observed):
    """Two observed images, and "fraction" (batch,): how far the image is from the first (0) to the second (1)."""

    def __init__(self, setup: Setup, source: str | None, length: int) -> None:
        super().__init__(setup, source)
        self.length = length

    def numbers(self, indices: Indices) -> Int[np.ndarray, "batch 2"]:
        """Row r goes from image 2 r to image 2 r + 1."""
        row = indices // self.length
        return np.stack([2 * row, 2 * row + 1], axis=1)

    def __call__(self, indices: Indices) -> dict[str, np.ndarray]:
        """Arrays with one row for each of the images number `indices`."""
        fraction = (indices % self.length / (self.length - 1)).astype(np.float32)
        return super().__call__(indices) | {"fraction": fraction}

    def pictures(self, stored: np.ndarray, extras: Mapping[str, np.ndarray]) -> dict[str, Grid | Strips]:
        """A strip for each row."""
        return {"interpolation.png": Strips(in_rows(stored, self.length), columns=1)}
