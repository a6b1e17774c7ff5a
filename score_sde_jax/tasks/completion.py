"""Tasks that are given a part P x_0 of an image: inpainting, colorization, super-resolution."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Num

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import guidance
from score_sde_jax.diffusion.guidance import Images, Keys, LinearObservation, Mask
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.errors import UserError
from score_sde_jax.samplers import Sampler, Samples
from score_sde_jax.tasks.masks import MASKS
from score_sde_jax.tasks.observed import Observed, open_mask
from score_sde_jax.tasks.task import Given, Indices, Networks, Setup, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion(Task):
    """A part P x_0 of an image is given, the rest is drawn.

    source: the images that are observed: a file, a folder or an npz (the test split of the run's data); image number i
    completes image i div samples_per_image of them, and begins again after the last.
    """

    observations: ClassVar[int] = 1
    source: str | None = None
    samples_per_image: int = 1

    def __post_init__(self) -> None:
        if self.samples_per_image < 1:
            raise ValueError(f"samples_per_image={self.samples_per_image} must be at least 1")

    def inputs(self, setup: Setup) -> "Completed":
        """The observed images."""
        return Completed(self, setup)

    def projector(self, keys: Keys, like: Images, given: Given) -> guidance.Projector:
        """The orthogonal projector on what is known."""
        raise NotImplementedError

    def sample(self, sampler: Sampler, networks: Networks, keys: Keys, like: Images, given: Given) -> Samples:
        """Images of the shape of `like`, one for each key; a pure function of the known part of what is observed."""
        key_start, key_run = prng.split(keys, 2)
        known = self.known(sampler.sde, keys, like, given)

        def prior(sde: SDE, keys: Keys, like: Images) -> Images:
            start = sampler.temperature * sampler.prior(sde, keys, like)
            return known.initialize(key_start, start, sampler.times[0])

        conditional = dataclasses.replace(sampler, prior=prior, temperature=1.0)
        samples = conditional(known.noise_fn(networks.noise_fn), key_run, like)
        return samples._replace(images=known.enforce(samples.images))

    def known(self, sde: SDE, keys: Keys, like: Images, given: Given) -> LinearObservation:
        """What is known of the observed images."""
        project = self.projector(prng.split(keys, 3)[2], like, given)
        return LinearObservation(sde, project, project(given["observed"][:, 0]))


class Completed(Observed):
    """Observed images of which a part is given, and beside the images what was given: gray where nothing is known."""

    def __init__(self, task: Completion, setup: Setup) -> None:
        super().__init__(setup, task.source)
        self.task, self.samples_per_image = task, task.samples_per_image

    def numbers(self, indices: Indices) -> Int[np.ndarray, "batch 1"]:
        """Image number i completes image i div samples_per_image."""
        return indices[:, None] // self.samples_per_image

    def extras(self, indices: Indices, images: Num[np.ndarray, "batch ..."], key: Array) -> dict[str, np.ndarray]:
        """The known part as `given`, uint8."""
        keys = prng.per_image(key, jnp.asarray(indices))
        given = {name: jnp.asarray(rows) for name, rows in self(indices).items()}
        observed = given["observed"][:, 0]
        gray = jnp.full_like(observed, sum(self.setup.pixels.ends) / 2)
        known = self.task.known(self.setup.sde, keys, observed, given)
        return {"given": self.setup.pixels.stored(np.asarray(known.enforce(gray)))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inpainting(Completion):
    """The pixels outside a mask are given.

    mask: what is hidden, `fraction` of the image: left, right, top, bottom, box, random, or a file: an image, white
    where it hides, or an npy array, nonzero where it hides.
    """

    mask: str = "right"
    fraction: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction={self.fraction} must lie between 0 and 1")

    def inputs(self, setup: Setup) -> Completed:
        """The observed images, and the mask of a file."""
        return Masked(self, setup) if self.mask not in MASKS else Completed(self, setup)

    def projector(self, keys: Keys, like: Images, given: Given) -> guidance.Projector:
        """The known pixels; a mask of a file comes as given["mask"], 1 where they are known."""
        known: Mask = given["mask"] if "mask" in given else MASKS[self.mask](keys, like, self.fraction)
        return guidance.pixel_mask(known)


class Masked(Completed):
    """With the mask of a file: "mask" (batch, height, width, 1), 1 where pixels are known."""

    def __init__(self, task: Inpainting, setup: Setup) -> None:
        super().__init__(task, setup)
        self.mask, self.description["mask"] = open_mask(task.mask, setup.image_shape)

    def __call__(self, indices: Indices) -> dict[str, np.ndarray]:
        """Arrays with one row for each of the images number `indices`."""
        return super().__call__(indices) | {"mask": np.broadcast_to(self.mask, (len(indices), *self.mask.shape))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colorization(Completion):
    """The mean over the colors of each pixel is given."""

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError for images without colors."""
        super().check(image_shape)
        if image_shape[2] != 3:
            raise UserError(f"--config.task.name=colorization needs images of 3 channels, not {image_shape[2]}")

    def projector(self, keys: Keys, like: Images, given: Given) -> guidance.Projector:
        """The grey direction."""
        return guidance.channel_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuperResolution(Completion):
    """The means over squares of factor by factor pixels are given."""

    factor: int = 2

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError for images that the squares do not fill."""
        super().check(image_shape)
        if self.factor < 2 or any(size % self.factor for size in image_shape[:2]):
            raise UserError(
                f"--config.task.factor={self.factor}: at least 2, and a divisor of the {image_shape[0]} by "
                f"{image_shape[1]} pixels"
            )

    def projector(self, keys: Keys, like: Images, given: Given) -> guidance.Projector:
        """The means of the squares."""
        return guidance.block_mean(self.factor)
