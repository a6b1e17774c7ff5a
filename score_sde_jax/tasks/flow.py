"""Tasks along the probability flow: images to their latents and back, and from image to image."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import ode
from score_sde_jax.diffusion.guidance import Images, Keys
from score_sde_jax.errors import UserError
from score_sde_jax.samplers import Sampler, Samples, decode, encode, interpolate
from score_sde_jax.tasks.task import Given, Networks, Numbers, Task


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

    def sources(self, indices: Numbers) -> Int[np.ndarray, "batch observations"]:
        """Number of the images that are observed for images number `indices`."""
        return indices[:, None]

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
        return Samples(images, images[None], jnp.sum(jnp.stack([way.evaluations for way in ways]), axis=0))


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

    def sources(self, indices: Numbers) -> Int[np.ndarray, "batch observations"]:
        """Number of the images that are observed for images number `indices`."""
        row = indices // (self.num_between + 2)
        return np.stack([2 * row, 2 * row + 1], axis=1)

    def given(self, indices: Numbers) -> dict[str, np.ndarray]:
        """How far each image is on its way, from 0 to 1."""
        return {"fraction": (indices % (self.num_between + 2) / (self.num_between + 1)).astype(np.float32)}

    def latents(self, first: Images, second: Images | None, given: Given) -> Images:
        """What is decoded, from the latents of the observed images."""
        assert second is not None

        def between(first: Array, second: Array, fraction: Array) -> Array:
            return interpolate(first[None], second[None], fraction[None])[0, 0]

        return jax.vmap(between)(first, second, given["fraction"])
