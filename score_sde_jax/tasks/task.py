"""Interfaces of tasks, which generate images, and of measures, which evaluate images.

Both are a pure function (params, indices, key, inputs) -> rows, with one row per index. `Parallel.per_example` runs it
on all devices, and `runs/numbered.py` resumes it. The file of a task or measure has its options, input arrays,
function, further results and pictures.
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

InputArrays = Mapping[str, Array]
"""Arrays with one row per image, such as "observed", "mask" and "label"."""
Indices = Int[np.ndarray, " batch"]
Points = Float[Array, "batch *shape"]
Rows = Callable[[PyTree, Array, Array, InputArrays], dict[str, Array]]
"""(params, indices, key, inputs) -> columns with one row per index."""

# ------------------------------------------------------------------------- pictures, drawn by runs/pictures.py


class Grid(NamedTuple):
    """A grid of images.

    Attributes:
        images: images in reading order.
        columns: images per row; by default the grid is nearly square.
    """

    images: UInt8[np.ndarray, "num height width channels"]
    columns: int | None = None


class Strips(NamedTuple):
    """A grid of strips; the images of a strip are side by side.

    Attributes:
        images: strips in reading order.
        columns: strips per row; by default the grid is nearly square.
    """

    images: UInt8[np.ndarray, "num length height width channels"]
    columns: int | None = None


class Histogram(NamedTuple):
    """A histogram.

    Attributes:
        values: values to count.
        label: label of the axis of values.
    """

    values: Float[np.ndarray, " num"]
    label: str


class LevelCurves(NamedTuple):
    """Curves of a value per bin of noise levels.

    Attributes:
        curves: values by name of the curve, from the smallest to the largest noise; None for a bin without value.
        label: label of the axis of values.
    """

    curves: Mapping[str, Sequence[float | None]]
    label: str


Picture = Grid | Strips | Histogram | LevelCurves

# ------------------------------------------------------------------------- tasks


class Networks(NamedTuple):
    """The trained networks, as functions of noisy images.

    Attributes:
        noise_fn: unconditional noise prediction.
        log_probabilities: log-probabilities of the classes by a classifier of noisy images, if the task has one.
        conditional: function from labels to the noise prediction of these classes, if the network has classes.
    """

    noise_fn: NoiseFn
    log_probabilities: LogProbabilities | None = None
    conditional: Callable[[Int[Array, " batch"]], NoiseFn] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSetup:
    """The part of a run that its task depends on.

    Attributes:
        image_shape: shape of an image.
        pixels: map between stored values and x_0.
        sde: forward diffusion.
        held_out: function that opens the images that are observed by default.
        about_held_out: identity of these images, for samples.json.
        num_classes: number of classes of the network or classifier; 0 for neither.
        description: settings of the task.
    """

    image_shape: tuple[int, ...]
    pixels: Pixels
    sde: SDE
    held_out: Callable[[], Dataset]
    about_held_out: Mapping[str, Any]
    num_classes: int = 0
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class TaskInputs:
    """Input arrays of a task and the results that it adds to the images; unconditional sampling has none.

    Attributes:
        setup: the run.
        description: settings of the task and identities of its input files, for samples.json.
    """

    def __init__(self, setup: TaskSetup) -> None:
        self.setup = setup
        self.description: dict[str, Any] = dict(setup.description)

    def __call__(self, indices: Indices) -> dict[str, np.ndarray]:
        """Return the input arrays of the images with these indices, one row per image."""
        del indices
        return {}

    def about(self) -> list[str]:
        """Return lines to print about the images that are observed, before any image is generated."""
        return []

    def extras(self, indices: Indices, images: Num[np.ndarray, "batch ..."], key: Array) -> dict[str, np.ndarray]:
        """Return arrays to save next to the images, one row per image.

        Args:
            indices: indices of the images.
            images: sampled x_0.
            key: key of the run's samples.
        """
        del indices, images, key
        return {}

    def pictures(
        self, stored: UInt8[np.ndarray, "num ..."], extras: Mapping[str, np.ndarray]
    ) -> dict[str, Grid | Strips]:
        """Return further pictures by file name.

        Args:
            stored: first images of the set.
            extras: their rows of `extras`.
        """
        del stored, extras
        return {}

    def lines(self, extras: Mapping[str, np.ndarray]) -> list[str]:
        """Return lines to print about a set of images.

        Args:
            extras: `extras` of all images of the set.
        """
        del extras
        return []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Unconditional sampling; with input "latents", from this initial noise."""

    observations: ClassVar[int] = 0
    """Observed images per image, input "observed" (batch, observations, height, width, channels)."""

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise UserError if the task is not defined for images of this shape."""
        if self.observations and len(image_shape) != 3:
            raise UserError(f"--config.task: observes images, but the data are points of shape {image_shape}")

    def inputs(self, setup: TaskSetup) -> TaskInputs:
        """Return the inputs of the task.

        Args:
            setup: the run.

        Raises:
            UserError: an input file is missing or does not fit the run.
        """
        return TaskInputs(setup)

    def sample(self, sampler: Sampler, networks: Networks, keys: Keys, like: Points, inputs: InputArrays) -> Samples:
        """Generate images; a pure function.

        Args:
            sampler: sampler of the run.
            networks: the trained networks.
            keys: one key per image.
            like: array of the shape and dtype of the images.
            inputs: input arrays, one row per image.
        """
        return sampler(networks.noise_fn, keys, like, initial_noise=inputs.get("latents"))


UNCONDITIONAL = Task()

# ------------------------------------------------------------------------- measures


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureSetup:
    """The part of a run that its measures depend on.

    Attributes:
        sde: forward diffusion.
        pixels: map between stored values and x_0.
        noise_fn: function from parameters to the noise prediction.
        log_probabilities: function from parameters to the log-probabilities of the classes, for a classifier.
        held_out_loss: (params, keys, batch of x_0[, times]) -> loss of each example.
        num_levels: number of noise levels of training; None for training in continuous time.
        level_index: whether the network is conditioned on the index of the noise level.
        name: name of the dataset.
        image_shape: shape of an image.
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
    """Values per image, and their summary.

    Attributes:
        name: name of the measure, for files and messages.
        rows: pure function of a batch; its inputs are the stored "image", its "label" and the "repeat", from 0.
        summary: (columns, number of images) -> summary of all rows.
        lines: (summary, number of images) -> lines to print.
        pictures: (summaries, columns), each by set of images -> pictures by file name.
        purpose: number folded into the key, so that measures have independent noise.
        repeats: measurements per image, >= 1.
        training: whether as many training images are measured too.
        notes: lines to print before the measurement.
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
    """Format the mean of a summary and its standard error."""
    mean, error = (summary[key] for key in ("mean", "standard_error"))
    return " +- ".join(f"{number:.4g}" if number is not None else "unknown" for number in (mean, error))
