"""Linear inverse problems: images given an observation y = P x_0, for inpainting, colorization and super-resolution."""

import dataclasses
from typing import Annotated, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Num

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import guidance
from score_sde_jax.diffusion.guidance import Images, Keys, LinearObservation, Mask
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.errors import UserError
from score_sde_jax.ranges import Count, PositiveShare, Range
from score_sde_jax.samplers import Sampler, Samples
from score_sde_jax.tasks.masks import MASKS
from score_sde_jax.tasks.observed import ObservedInputs, open_mask
from score_sde_jax.tasks.task import Indices, InputArrays, Networks, Task, TaskSetup


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion(Task):
    """Sampling given an observation y = P x_0; subclasses define the orthogonal projector P.

    Attributes:
        source: path of the observed images (an image, folder, zip or npz file); by default the test split of the run's
            data.
        samples_per_image: samples per observed image, >= 1: image i is given observed image i // samples_per_image, and
            the first follows the last.

    Reference: arXiv 2011.13456, Appendix I; theory.md eq. (32).
    """

    observations: ClassVar[int] = 1
    source: str | None = None
    samples_per_image: Count = 1

    def __post_init__(self) -> None:
        if self.samples_per_image < 1:
            raise ValueError(f"samples_per_image must be >= 1, got {self.samples_per_image}")

    def inputs(self, setup: TaskSetup) -> "CompletionInputs":
        """Return the observed images."""
        return CompletionInputs(self, setup)

    def projector(self, keys: Keys, like: Images, inputs: InputArrays) -> guidance.Projector:
        """Return the orthogonal projector P.

        Args:
            keys: one key per image.
            like: array of the shape and dtype of the images.
            inputs: input arrays, one row per image.
        """
        raise NotImplementedError

    def sample(self, sampler: Sampler, networks: Networks, keys: Keys, like: Images, inputs: InputArrays) -> Samples:
        """Generate images with the observed part of inputs["observed"]; a pure function, see `Task.sample`."""
        key_start, key_run = prng.split(keys, 2)
        observation = self.observation(sampler.sde, keys, like, inputs)

        def prior(sde: SDE, keys: Keys, like: Images) -> Images:
            start = sampler.temperature * sampler.prior(sde, keys, like)
            return observation.initialize(key_start, start, sampler.times[0])

        conditional = dataclasses.replace(sampler, prior=prior, temperature=1.0)
        samples = conditional(observation.noise_fn(networks.noise_fn), key_run, like)
        return samples._replace(images=observation.enforce(samples.images))

    def observation(self, sde: SDE, keys: Keys, like: Images, inputs: InputArrays) -> LinearObservation:
        """Return the observation y = P x_0 of the images inputs["observed"].

        Args:
            sde: forward diffusion.
            keys: one key per image.
            like: array of the shape and dtype of the images.
            inputs: input arrays, one row per image.
        """
        project = self.projector(prng.split(keys, 3)[2], like, inputs)
        return LinearObservation(sde, project, project(inputs["observed"][:, 0]))


class CompletionInputs(ObservedInputs):
    """Observed images; their observation is saved as `given`, gray in its null space."""

    def __init__(self, task: Completion, setup: TaskSetup) -> None:
        super().__init__(setup, task.source)
        self.task, self.samples_per_image = task, task.samples_per_image

    def source_indices(self, indices: Indices) -> Int[np.ndarray, "batch 1"]:
        """Return indices // samples_per_image."""
        return indices[:, None] // self.samples_per_image

    def extras(self, indices: Indices, images: Num[np.ndarray, "batch ..."], key: Array) -> dict[str, np.ndarray]:
        """Return the observations as `given`, uint8."""
        keys = prng.per_image(key, jnp.asarray(indices))
        inputs = {name: jnp.asarray(rows) for name, rows in self(indices).items()}
        observed = inputs["observed"][:, 0]
        gray = jnp.full_like(observed, sum(self.setup.pixels.ends) / 2)
        observation = self.task.observation(self.setup.sde, keys, observed, inputs)
        return {"given": self.setup.pixels.stored(np.asarray(observation.enforce(gray)))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inpainting(Completion):
    """Inpainting: the pixels outside a mask are observed.

    Attributes:
        mask: hidden pixels: left, right, top, bottom, box, random, or the path of an image (hidden where white) or npy
            array (hidden where nonzero).
        fraction: hidden fraction of the image, > 0 and < 1; not used with a mask from a file.

    Reference: arXiv 2011.13456, Appendix I; theory.md eq. (32).
    """

    mask: str = "right"
    fraction: PositiveShare = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must be > 0 and < 1, got {self.fraction}")

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError if a mask of this fraction hides all or no pixels of such images."""
        super().check(image_shape)
        if self.mask in MASKS and self.mask != "random":
            keys = prng.per_image(prng.root(0, "sample"), jnp.arange(1))
            known = MASKS[self.mask](keys, jnp.zeros((1, *image_shape)), self.fraction)
            if known.min() == known.max():
                hidden = "no" if known.min() else "all"
                raise UserError(
                    f"--config.task.fraction={self.fraction}: mask={self.mask} hides {hidden} pixels of images of "
                    f"{image_shape[0]} x {image_shape[1]} pixels; choose another"
                )

    def inputs(self, setup: TaskSetup) -> CompletionInputs:
        """Return the observed images, and the mask if it is a file."""
        return MaskedInputs(self, setup) if self.mask not in MASKS else CompletionInputs(self, setup)

    def projector(self, keys: Keys, like: Images, inputs: InputArrays) -> guidance.Projector:
        """Return the projector on the known pixels; inputs["mask"] is a mask from a file."""
        mask: Mask = inputs["mask"] if "mask" in inputs else MASKS[self.mask](keys, like, self.fraction)
        return guidance.pixel_mask(mask)


class MaskedInputs(CompletionInputs):
    """Further input "mask" (batch, height, width, 1), from a file: 1 for known pixels."""

    def __init__(self, task: Inpainting, setup: TaskSetup) -> None:
        super().__init__(task, setup)
        self.mask, self.description["mask"] = open_mask(task.mask, setup.image_shape)

    def __call__(self, indices: Indices) -> dict[str, np.ndarray]:
        """Return the observed images and masks of the images with these indices."""
        return super().__call__(indices) | {"mask": np.broadcast_to(self.mask, (len(indices), *self.mask.shape))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colorization(Completion):
    """Colorization: the mean of the three channels of each pixel is observed.

    Reference: arXiv 2011.13456, Appendix I; theory.md eq. (32).
    """

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError if the images are not RGB."""
        super().check(image_shape)
        if image_shape[2] != 3:
            raise UserError(f"--config.task.name=colorization: needs images of 3 channels, not {image_shape[2]}")

    def projector(self, keys: Keys, like: Images, inputs: InputArrays) -> guidance.Projector:
        """Return the projector on gray images."""
        return guidance.channel_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuperResolution(Completion):
    """Super-resolution: the means of blocks of factor x factor pixels are observed.

    Attributes:
        factor: height and width of a block, in pixels, >= 2; it divides height and width of the image.

    Reference: theory.md eq. (32).
    """

    factor: Annotated[int, Range(2, 2**14)] = 2

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError if the factor does not divide the image size."""
        super().check(image_shape)
        if self.factor < 2 or any(size % self.factor for size in image_shape[:2]):
            raise UserError(
                f"--config.task.factor={self.factor}: must be >= 2 and divide the image size, {image_shape[0]} x "
                f"{image_shape[1]} pixels"
            )

    def projector(self, keys: Keys, like: Images, inputs: InputArrays) -> guidance.Projector:
        """Return the projector on images with constant blocks."""
        return guidance.block_mean(self.factor)
