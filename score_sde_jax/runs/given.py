"""What a task is given for each image: observed images from files, masks, classes; and what is left beside the images.

A classifier is a run of its own; its experiment and parameters are fetched here.
"""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, UInt8
from PIL import Image

from score_sde_jax import keys as prng
from score_sde_jax import tasks
from score_sde_jax.data import Dataset, declared_levels
from score_sde_jax.data import images as files
from score_sde_jax.data.dataset import ArrayDataset
from score_sde_jax.data.folder import image_folder
from score_sde_jax.data.npz import npz
from score_sde_jax.devices.parallel import Parallel
from score_sde_jax.errors import UserError
from score_sde_jax.runs import build, pictures, workdir
from score_sde_jax.runs.experiment import Experiment, abstract_averages
from score_sde_jax.settings import Settings, flatten, from_saved, plain, with_values
from score_sde_jax.tasks import ClassConditional, Inpainting, Interpolation, Task
from score_sde_jax.tasks.masks import MASKS

GREY_LEVELS = 255.0


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained classifier of noisy images: its experiment, parameters, and the step of its checkpoint."""

    experiment: Experiment
    params: PyTree
    step: int
    num_classes: int


class Given:
    """What section `task` of a config gives to image number i of a run, and the pictures of it.

    Raises UserError for a source, mask or label that is not there or does not fit.
    """

    def __init__(self, settings: Settings, task: Task, experiment: Experiment, classifier: Classifier | None) -> None:
        self.task, self.sde, self.image_shape = task, experiment.sde, experiment.image_shape
        self.value_range, self.levels = settings.data.value_range or (0.0, 1.0), None
        if settings.data.dequantize:
            self.levels = declared_levels(settings.data.name)
        self.classes = classifier.num_classes if classifier else 0
        self.source: Dataset | None = None
        self.mask: np.ndarray | None = None
        section = json.loads(json.dumps(plain(settings)["task"]))
        self.description: dict[str, Any] = section if section["name"] != "none" else {}
        if task.observations:
            self.source, self.description["source"] = _source(settings, section["source"], self.image_shape)
        if isinstance(task, Inpainting) and task.mask not in MASKS:
            self.mask, self.description["mask"] = _mask(task.mask, self.image_shape)
        if classifier:
            self.description["classifier_step"] = classifier.step
            self(np.zeros(1, np.int64))  # refuses a label that is none

    def __call__(self, indices: Int[np.ndarray, " batch"]) -> dict[str, np.ndarray]:
        """Arrays with one row for each of the images number `indices`."""
        arrays = self.task.given(indices)
        if self.source:
            arrays["observed"] = self._observed(indices)
        if self.mask is not None:
            arrays["mask"] = np.broadcast_to(self.mask, (len(indices), *self.mask.shape))
        if isinstance(self.task, ClassConditional):
            arrays["label"] = self.task.labels(indices, self.classes)
        return arrays

    def _observed(self, indices: Int[np.ndarray, " batch"]) -> Float[np.ndarray, "batch observations ..."]:
        assert self.source is not None
        numbers = self.task.sources(indices) % len(self.source)
        stored = self.source.gather(numbers.ravel())[0]
        # a run that has learned values spread over each level is given its middle
        middle = np.full(stored.shape, 0.5, np.float32) if self.levels else None
        found = files.scale(stored, self.source.levels, self.value_range, middle)
        return found.reshape(*numbers.shape, *found.shape[1:])

    def _stored(self, images: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
        return pictures.to_uint8(images, self.value_range, self.levels)

    def beside(
        self, indices: Int[np.ndarray, " batch"], images: Float[np.ndarray, "batch ..."], key: Array
    ) -> dict[str, np.ndarray]:
        """What is kept beside the images, with one row for each: `given` (uint8, grey where nothing is known), the
        class (`labels`), or the mean absolute error of a reconstruction in grey levels (`errors`).
        """
        arrays = self(indices)
        if isinstance(self.task, tasks.Completion):
            keys, middle = prng.per_image(key, jnp.asarray(indices)), sum(self.value_range) / 2
            shown = self.task.shown(self.sde, keys, {name: jnp.asarray(rows) for name, rows in arrays.items()}, middle)
            return {"given": self._stored(np.asarray(shown))}
        if isinstance(self.task, ClassConditional):
            return {"labels": arrays["label"]}
        if self.task.observations == 1:
            low, high = self.value_range
            errors = np.abs(images - arrays["observed"][:, 0]).mean(axis=tuple(range(1, images.ndim)))
            return {"errors": GREY_LEVELS / (high - low) * errors}
        return {}

    def pictures(self, stored: UInt8[np.ndarray, "num ..."], beside: dict[str, np.ndarray]) -> dict[str, Image.Image]:
        """Pictures of what is given and what became of it, by their file names."""
        if isinstance(self.task, Interpolation):
            return {"interpolation.png": pictures.strips(_rows(stored, self.task.num_between + 2), columns=1)}
        if isinstance(self.task, ClassConditional) and self.task.label is None:
            whole = len(stored) // self.classes * self.classes or len(stored)
            return {"classes.png": pictures.grid(stored[:whole], columns=self.classes)}
        if not self.task.observations:
            return {}
        each = getattr(self.task, "samples_per_image", 1)
        stored = stored[: max(each, len(stored) // each * each)]
        first = np.arange(0, len(stored), each)
        original = self._stored(self._observed(first))
        columns = [_rows(stored, each), original]
        if "given" in beside:
            columns.insert(0, beside["given"][first][:, None])
        return {"observed.png": pictures.strips(np.concatenate(columns, axis=1))}


def _rows(images: np.ndarray, length: int) -> np.ndarray:
    """Rows of so many images; what does not fill the last one is blank."""
    num = math.ceil(len(images) / length)
    padded = np.full((num * length, *images.shape[1:]), 255, images.dtype)
    padded[: len(images)] = images
    return padded.reshape(num, length, *images.shape[1:])


# ------------------------------------------------------------------------- files


def _source(settings: Settings, path: str | None, image_shape: tuple[int, ...]) -> tuple[Dataset, Any]:
    """The images that are observed, of that shape, and what identifies them."""
    if path is None:
        return _held_out(settings)
    place, (size, width, channels) = Path(path).expanduser(), image_shape
    if not place.exists():
        raise UserError(f"--config.task.source={path}: no such file or folder")
    if size != width:
        raise UserError(f"--config.task.source={path}: images of {size} by {width} pixels are not square; leave it out")
    if place.is_dir() or place.suffix == ".zip":
        return image_folder(dir=path, image_size=size, channels=channels), {"folder": str(place.resolve())}
    if place.suffix == ".npz":
        found = npz(dir=path, channels=channels)
        stored = found.gather(np.arange(len(found)))[0]
    else:
        try:
            stored = files.decode(str(place), channels)[None]
        except Exception as error:  # broken files make Pillow raise nearly anything
            raise UserError(f"--config.task.source={path}: not an image that can be read ({error})") from error
    resized = np.stack([files.resize(files.centre_crop(image), size) for image in stored])
    return ArrayDataset(place.name, resized, labels=None), {"file": _digest(place)}


def _held_out(settings: Settings) -> tuple[Dataset, Any]:
    """The test split of the run's data if there is one, or the data themselves."""
    if settings.data.get("split") is not None:
        settings = with_values(settings, {"data.split": "test"})
    return build.dataset(settings), {"data": settings.data.name, "split": settings.data.get("split")}


def _mask(path: str, image_shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """A mask of a file, 1 where pixels are known, and what identifies it."""
    place = Path(path).expanduser()
    if not place.is_file():
        raise UserError(f"--config.task.mask={path}: no such file, and none of {', '.join(MASKS)}")
    try:
        hidden = np.load(place) if place.suffix == ".npy" else files.decode(str(place), 1)[..., 0] > 127
    except Exception as error:  # broken files make Pillow raise nearly anything
        raise UserError(f"--config.task.mask={path}: not a mask that can be read ({error})") from error
    hidden = np.asarray(hidden).squeeze() != 0
    if hidden.shape != image_shape[:2]:
        raise UserError(f"--config.task.mask={path}: of shape {hidden.shape}; the images are {image_shape[:2]}")
    if hidden.all() or not hidden.any():
        raise UserError(f"--config.task.mask={path}: hides {'all' if hidden.all() else 'none'} of the pixels")
    return (~hidden)[..., None].astype(np.float32), _digest(place)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


# ------------------------------------------------------------------------- another run


def classifier(settings: Settings, directory: Path, experiment: Experiment, parallel: Parallel) -> Classifier:
    """The latest classifier of the run in `directory`; UserError if it does not fit the run of these settings."""
    key = f"--config.task.classifier={directory}"
    saved = workdir.saved_config(directory)
    if saved is None:
        raise UserError(f"{key}: no run there; train one, such as --config=configs/digits_classifier.py")
    theirs = from_saved(saved)
    if theirs.loss.name != "classification":
        raise UserError(f"{key}: not a classifier, but a run of loss.name={theirs.loss.name}")
    shape = tuple(saved[workdir.IMAGE_SHAPE])
    if shape != experiment.image_shape:
        raise UserError(f"{key}: for images of shape {shape}, not {experiment.image_shape}")
    ranges = [tuple(section.value_range or (0.0, 1.0)) for section in (theirs.data, settings.data)]
    if ranges[0] != ranges[1]:
        raise UserError(f"{key}: for images of data.value_range={ranges[0]}, not {ranges[1]}")
    noise, ours = (flatten(plain(one)["sde"], "sde") for one in (theirs, settings))
    for path in [*ours, *noise]:
        if noise.get(path) != ours.get(path):
            raise UserError(f"{key}: trained on other noise, with {path}={noise.get(path)}, not {ours.get(path)}")
    other = build.experiment(theirs, shape)
    step, averages = workdir.restore(directory, None, abstract_averages(other, parallel))
    return Classifier(other, averages["ema_params"], step, theirs.model.num_classes)
