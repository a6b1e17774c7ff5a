"""What is asked of a trained network, image by image: images to draw, or numbers to measure.

Either is one pure function (params, indices, key, given) -> rows, with one row for every index; `Parallel.per_example`
runs it, and `runs/numbered.py` continues it where an earlier call stopped. Each file of this wing holds one task or
measure with all that belongs to it: the arrays it is given, the function, what it leaves beside the rows, its pictures.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Num, PyTree, UInt8

from score_sde_jax.data import Dataset, Pixels
from score_sde_jax.diffusion.guidance import Keys
from score_sde_jax.diffusion.parameterization import LogProbabilities, NoiseFn
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.errors import UserError
from score_sde_jax.samplers import Sampler, Samples

Given = Mapping[str, Array]
Indices = Int[np.ndarray, " batch"]
Points = Float[Array, "batch *shape"]
Rows = Callable[[PyTree, Array, Array, Given], dict[str, Array]]
"""(params, indices, key, given) -> columns with one row for every index."""

# ------------------------------------------------------------------------- pictures, drawn by runs/pictures.py


class Grid(NamedTuple):
    """Images in rows of so many columns."""

    images: UInt8[np.ndarray, "num height width channels"]
    columns: int | None = None


class Strips(NamedTuple):
    """Images that belong together, side by side; strips in rows of so many columns."""

    images: UInt8[np.ndarray, "num length height width channels"]
    columns: int | None = None


class Histogram(NamedTuple):
    """How often a number has which value."""

    values: Float[np.ndarray, " num"]
    label: str


class LevelCurves(NamedTuple):
    """A number for each bin of noise levels, from the smallest to the largest noise, by the name of its curve."""

    curves: Mapping[str, Sequence[float | None]]
    label: str


Picture = Grid | Strips | Histogram | LevelCurves

# ------------------------------------------------------------------------- images to draw


class Networks(NamedTuple):
    """What is trained: the noise prediction, that of given classes, and a classifier of noisy images.

    conditional: from labels to the noise prediction of these classes, if the network knows labels.
    """

    noise_fn: NoiseFn
    log_probabilities: LogProbabilities | None = None
    conditional: Callable[[Int[Array, " batch"]], NoiseFn] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """What a run hands to its task.

    held_out: opens the images that are observed by default. about_held_out: what identifies them. num_classes: of the
    network or the classifier, 0 for none. description: settings of the task.
    """

    image_shape: tuple[int, ...]
    pixels: Pixels
    sde: SDE
    held_out: Callable[[], Dataset]
    about_held_out: Mapping[str, Any]
    num_classes: int = 0
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Inputs:
    """What a task is given for each image of a run, and what it leaves beside the images: here nothing."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.description: dict[str, Any] = dict(setup.description)
        """What identifies the task and all that it is given."""

    def __call__(self, indices: Indices) -> dict[str, np.ndarray]:
        """Arrays with one row for each of the images number `indices`."""
        del indices
        return {}

    def extras(self, indices: Indices, images: Num[np.ndarray, "batch ..."], key: Array) -> dict[str, np.ndarray]:
        """What is kept beside the images, with one row for each."""
        del indices, images, key
        return {}

    def pictures(
        self, stored: UInt8[np.ndarray, "num ..."], extras: Mapping[str, np.ndarray]
    ) -> dict[str, Grid | Strips]:
        """Pictures of the first images and what they were given, by their file names."""
        del stored, extras
        return {}

    def lines(self, extras: Mapping[str, np.ndarray]) -> list[str]:
        """What is said of all images of a set."""
        del extras
        return []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Images of the data: unconditional sampling, from given latents if there are any."""

    observations: ClassVar[int] = 0
    """How many observed images are given to each image: "observed" (batch, observations, height, width, channels)."""

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError if the task makes no sense for images of this shape."""
        if self.observations and len(image_shape) != 3:
            raise UserError(f"--config.task: only images can be observed, not points of shape {image_shape}")

    def inputs(self, setup: Setup) -> Inputs:
        """What the task is given; UserError for files that are missing or do not fit."""
        return Inputs(setup)

    def sample(self, sampler: Sampler, networks: Networks, keys: Keys, like: Points, given: Given) -> Samples:
        """Images of the shape of `like`, one for each key; a pure function."""
        return sampler(networks.noise_fn, keys, like, initial_noise=given.get("latents"))


UNCONDITIONAL = Task()

# ------------------------------------------------------------------------- numbers to measure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What a run hands to its measures: the networks as functions of the parameters, and the images.

    held_out_loss: (params, keys, batch of x_0[, times]) -> loss of each example. num_levels: of the noise ladder, None
    for a network that is trained at all times. name, image_shape: of the dataset.
    """

    sde: SDE
    pixels: Pixels
    noise_fn: Callable[[PyTree], NoiseFn]
    log_probabilities: Callable[[PyTree], LogProbabilities] | None
    held_out_loss: Callable[..., Array]
    num_levels: int | None
    level_index: bool
    name: str
    image_shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """Numbers of each image, and what they amount to.

    rows: `given` holds the stored "image", its "label", and the "repeat" of the measurement. summary: from columns and
    the number of images. lines: from a summary and the number of images. pictures: from the summary and the columns of
    each set of images, by file name. training: whether as many training images are measured too. purpose: folded into
    the key, so that measures share no noise.
    """

    name: str
    rows: Rows
    summary: Callable[[Mapping[str, list], int], dict[str, Any]]
    lines: Callable[[Mapping[str, Any], int], list[str]]
    pictures: Callable[[Mapping[str, Mapping[str, Any]], Mapping[str, Mapping[str, list]]], dict[str, Picture]]
    purpose: int
    repeats: int = 1
    training: bool = False
    notes: tuple[str, ...] = ()


def plus_minus(summary: Mapping[str, Any]) -> str:
    """A mean with its standard error."""
    mean, error = (summary[key] for key in ("mean", "standard_error"))
    return " +- ".join(f"{number:.4g}" if number is not None else "unknown" for number in (mean, error))
