"""Inputs of tasks that observe images: images and masks from files."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from score_sde_jax import paths
from score_sde_jax.data import Dataset
from score_sde_jax.data import images as files
from score_sde_jax.data.dataset import ArrayDataset
from score_sde_jax.data.folder import image_folder
from score_sde_jax.data.npz import npz
from score_sde_jax.errors import UserError
from score_sde_jax.tasks.masks import MASKS
from score_sde_jax.tasks.task import Grid, Indices, Strips, TaskInputs, TaskSetup


class ObservedInputs(TaskInputs):
    """Input "observed" (batch, observations, height, width, channels), the observed images.

    Attributes:
        source: dataset of the images that are observed.
        samples_per_image: consecutive samples that share their observed image.
    """

    samples_per_image = 1

    def __init__(self, setup: TaskSetup, source: str | None) -> None:
        super().__init__(setup)
        self.source, self.description["source"] = open_source(source, setup)

    def about(self) -> list[str]:
        """Return the lines of the dataset of observed images."""
        return [line.replace("data: ", "observed: ", 1) for line in self.source.lines()]

    def source_indices(self, indices: Indices) -> Int[np.ndarray, "batch observations"]:
        """Return the indices of the observed images, modulo the length of the source."""
        raise NotImplementedError

    def __call__(self, indices: Indices) -> dict[str, np.ndarray]:
        """Return the observed images of the images with these indices."""
        return {"observed": self.observed(indices)}

    def observed(self, indices: Indices) -> Float[np.ndarray, "batch observations ..."]:
        """Return x_0 of the observed images."""
        numbers = self.source_indices(indices) % len(self.source)
        pixels = dataclasses.replace(self.setup.pixels, levels=self.source.levels)  # a file may have other levels
        x0 = pixels.known(self.source.gather(numbers.ravel())[0])
        return x0.reshape(*numbers.shape, *x0.shape[1:])

    def pictures(self, stored: np.ndarray, extras: Mapping[str, np.ndarray]) -> dict[str, Grid | Strips]:
        """Return strips of the observation, its samples, and the observed image."""
        each = self.samples_per_image
        stored = stored[: max(each, len(stored) // each * each)]
        first = np.arange(0, len(stored), each)
        columns = [in_rows(stored, each), self.setup.pixels.stored(self.observed(first))]
        if "given" in extras:
            columns.insert(0, extras["given"][first][:, None])
        return {"observed.png": Strips(np.concatenate(columns, axis=1))}


def in_rows(images: np.ndarray, length: int) -> np.ndarray:
    """Arrange images in rows; the last row is filled up with white.

    Args:
        images: images in reading order.
        length: images per row.
    """
    num = math.ceil(len(images) / length)
    padded = np.full((num * length, *images.shape[1:]), 255, images.dtype)
    padded[: len(images)] = images
    return padded.reshape(num, length, *images.shape[1:])


# ------------------------------------------------------------------------- files


def open_source(path: str | None, setup: TaskSetup) -> tuple[Dataset, Any]:
    """Open observed images; those of files are cropped and resized to the run's shape.

    Args:
        path: an image, folder, zip or npz file; None for the held-out images of the run.
        setup: the run.

    Returns:
        The images and their identity, for samples.json.

    Raises:
        UserError: the file is missing or not readable.
    """
    if path is None:
        return setup.held_out(), dict(setup.about_held_out)
    key = "--config.task.source"
    place, (height, width, channels) = paths.expanded(path, key), setup.image_shape
    kind = paths.kind(place, key, path)
    if kind in ("missing", "pipe or device"):
        raise UserError(f"{key}={path}: {'no such file or folder' if kind == 'missing' else f'found a {kind}'}")
    if kind == "folder" or place.suffix == ".zip":
        return _of(key, image_folder)(dir=path, image_size=(height, width), channels=channels), {
            "folder": str(place.resolve())
        }
    if place.suffix == ".npz":
        archive = _of(key, npz)(dir=path, channels=channels)
        stored = archive.gather(np.arange(len(archive)))[0]
    else:
        try:
            stored = files.decode(place, channels)[None]
        except Exception as error:  # Pillow raises many types for corrupted files
            raise UserError(f"{key}={path}: not a readable image ({error})") from error
    size = (height, width)
    resized = np.stack([files.resize(files.crop(image, size), size) for image in stored])
    return ArrayDataset(place.name, resized, labels=None), {"file": digest(place)}


def _of(key: str, opener: Callable[..., Dataset]) -> Callable[..., Dataset]:
    """Return a function that opens a dataset, whose errors name the key of the task."""

    def open_dataset(**options: Any) -> Dataset:
        try:
            return opener(**options)
        except UserError as error:
            raise UserError(str(error).replace("--config.data.dir", key)) from error

    return open_dataset


def open_mask(path: str, image_shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """Read a mask from a file.

    Args:
        path: an image, hidden where it is brighter than half of its largest value, or an npy array, hidden where
            nonzero. Neither is rotated or resized.
        image_shape: shape of an image.

    Returns:
        The mask (height, width, 1), 1 for known pixels, and its identity, for samples.json.

    Raises:
        UserError: the file is missing or not readable, or the mask has another shape or hides all or no pixels.
    """
    given = f"--config.task.mask={path}"
    place = paths.expanded(path, "--config.task.mask")
    if paths.kind(place, "--config.task.mask", path) != "file":
        raise UserError(f"{given}: no such file; choose one of {', '.join(MASKS)}, or a file")
    try:
        hidden = np.load(place) != 0 if place.suffix == ".npy" else _bright(place)
    except Exception as error:  # Pillow raises many types for corrupted files
        raise UserError(f"{given}: not a readable mask ({error})") from error
    if hidden.ndim == 3 and 1 in (hidden.shape[0], hidden.shape[2]):  # an axis of channels, first or last
        hidden = hidden[0] if hidden.shape[0] == 1 else hidden[..., 0]
    if hidden.shape != image_shape[:2]:
        raise UserError(f"{given}: has shape {hidden.shape}, must have that of the images, {image_shape[:2]}")
    if hidden.all() or not hidden.any():
        raise UserError(f"{given}: hides {'all' if hidden.all() else 'no'} pixels; choose another")
    return (~hidden)[..., None].astype(np.float32), digest(place)


def _bright(place: Path) -> np.ndarray:
    """Return where an image is brighter than half of its largest value; masks may be saved as 0 and 1, or 0 and 255."""
    with Image.open(place) as source:
        deep = source.mode.startswith(("I", "F"))
        gray = np.asarray(source if deep or source.mode == "1" else source.convert("L")).astype(np.float64)
    return gray > gray.max() / 2


def digest(path: Path) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
