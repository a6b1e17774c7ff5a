"""What is drawn: images of the data, or with something given (an image in part, a class, two images to go between).

A task is a pure function around a sampler; what is given to image number i is in a tree of arrays with one row for
every image of the batch. None copies a loop: they wrap the noise prediction, or go along the probability flow.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from score_sde_jax import conditioning, ode
from score_sde_jax import keys as prng
from score_sde_jax.conditioning import MASKS, Images, Keys, Known, Mask
from score_sde_jax.errors import UserError
from score_sde_jax.parameterization import LogProbabilities, NoiseFn
from score_sde_jax.samplers import Sampler, Samples, decode, encode, interpolate
from score_sde_jax.sdes import SDE

Given = Mapping[str, Array]
Numbers = Int[np.ndarray, " batch"]
Points = Float[Array, "batch *shape"]


class Networks(NamedTuple):
    """What is trained: the noise prediction and, where a task has one, a classifier of noisy images."""

    noise_fn: NoiseFn
    log_probabilities: LogProbabilities | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Images of the data, with nothing given but, where wanted, the latents to start from."""

    observations: ClassVar[int] = 0
    """How many observed images are given to each image: "observed" (batch, observations, height, width, channels)."""

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError where the task makes no sense for images of this shape."""
        if self.observations and len(image_shape) != 3:
            raise UserError(f"config.task: only images can be observed, not points of shape {image_shape}")

    def sources(self, indices: Numbers) -> Int[np.ndarray, "batch observations"]:
        """Number of the images that are observed for images number `indices`."""
        return np.zeros((len(indices), 0), np.int64)

    def given(self, indices: Numbers) -> dict[str, np.ndarray]:
        """What else is given to images number `indices`."""
        del indices
        return {}

    def sample(self, sampler: Sampler, networks: Networks, keys: Keys, like: Points, given: Given) -> Samples:
        """Images of the shape of `like`, one for each key; a pure function."""
        return sampler(networks.noise_fn, keys, like, start=given.get("latents"))


UNCONDITIONAL = Task()

# ------------------------------------------------------------------------- part of an image is given


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

    def sources(self, indices: Numbers) -> Int[np.ndarray, "batch observations"]:
        """Number of the images that are observed for images number `indices`."""
        return indices[:, None] // self.samples_per_image

    def projector(self, keys: Keys, like: Images, given: Given) -> conditioning.Projector:
        """The orthogonal projector on what is known."""
        raise NotImplementedError

    def sample(self, sampler: Sampler, networks: Networks, keys: Keys, like: Images, given: Given) -> Samples:
        """Images of the shape of `like`, one for each key; a pure function of the known part of what is observed."""
        key_start, key_run = prng.split(keys, 2)
        known = self.known(sampler.sde, keys, like, given)

        def prior(sde: SDE, keys: Keys, like: Images) -> Images:
            start = sampler.temperature * sampler.prior(sde, keys, like)
            return known.start(key_start, start, sampler.times[0])

        conditional = dataclasses.replace(sampler, prior=prior, temperature=1.0)
        samples = conditional(known.noise_fn(networks.noise_fn), key_run, like)
        return samples._replace(images=known.finish(samples.images))

    def known(self, sde: SDE, keys: Keys, like: Images, given: Given) -> Known:
        """What is known of the observed images."""
        project = self.projector(prng.split(keys, 3)[2], like, given)
        return Known(sde, project, project(given["observed"][:, 0]))

    def shown(self, sde: SDE, keys: Keys, given: Given, grey: float) -> Images:
        """The known part, and grey where nothing is known."""
        observed = given["observed"][:, 0]
        return self.known(sde, keys, observed, given).finish(jnp.full_like(observed, grey))


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

    def projector(self, keys: Keys, like: Images, given: Given) -> conditioning.Projector:
        """The known pixels; a mask of a file comes as given["mask"], 1 where they are known."""
        known: Mask = given["mask"] if "mask" in given else MASKS[self.mask](keys, like, self.fraction)
        return conditioning.masked(known)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colorization(Completion):
    """The mean over the colours of each pixel is given."""

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError for images without colours."""
        super().check(image_shape)
        if image_shape[2] != 3:
            raise UserError(f"config.task.name=colorization needs images of 3 channels, not {image_shape[2]}")

    def projector(self, keys: Keys, like: Images, given: Given) -> conditioning.Projector:
        """The grey direction."""
        return conditioning.grey


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuperResolution(Completion):
    """The means over squares of factor by factor pixels are given."""

    factor: int = 2

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError for images that the squares do not fill."""
        super().check(image_shape)
        if self.factor < 2 or any(size % self.factor for size in image_shape[:2]):
            raise UserError(
                f"config.task.factor={self.factor}: at least 2, and a divisor of the {image_shape[0]} by "
                f"{image_shape[1]} pixels"
            )

    def projector(self, keys: Keys, like: Images, given: Given) -> conditioning.Projector:
        """The means of the squares."""
        return conditioning.block_means(self.factor)


# ------------------------------------------------------------------------- a class is given


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassConditional(Task):
    """A class is given, by a classifier of noisy images that a run of its own has trained.

    classifier: workdir of that run; label: the class (None: image i is of class i mod num_classes); scale: of the
    guidance, 1 for the distribution given the class.
    """

    classifier: str
    label: int | None = None
    scale: float = 1.0

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError for a scale that is no number of use."""
        del image_shape
        if not 0 <= self.scale < float("inf"):
            raise UserError(f"config.task.scale={self.scale}: 0 or above")

    def labels(self, indices: Numbers, num_classes: int) -> Int[np.ndarray, " batch"]:
        """Class of images number `indices`; UserError for a label that is none."""
        if self.label is None:
            return (indices % num_classes).astype(np.int32)
        if not 0 <= self.label < num_classes:
            raise UserError(f"config.task.label={self.label}: the classes are 0 to {num_classes - 1}")
        return np.full(len(indices), self.label, np.int32)

    def sample(self, sampler: Sampler, networks: Networks, keys: Keys, like: Points, given: Given) -> Samples:
        """Images of the classes given["label"]; a pure function."""
        assert networks.log_probabilities is not None, "no classifier"
        noise_fn = conditioning.guided(
            networks.noise_fn, sampler.sde, networks.log_probabilities, given["label"], self.scale
        )
        return sampler(noise_fn, keys, like)


# ------------------------------------------------------------------------- along the probability flow


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
            raise UserError(f"config.task.num_between={self.num_between}: at least 1")

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


TASKS = {
    "none": Task,
    "inpainting": Inpainting,
    "colorization": Colorization,
    "super_resolution": SuperResolution,
    "class_conditional": ClassConditional,
    "interpolation": Interpolation,
    "reconstruction": Reconstruction,
}
