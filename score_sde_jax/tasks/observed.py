"""Observed images and masks from files, and what every task that observes images leaves."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from score_sde_jax.data import Dataset
from score_sde_jax.data import images as files
from score_sde_jax.data.dataset import ArrayDataset
from score_sde_jax.data.folder import image_folder
from score_sde_jax.data.npz import npz
from score_sde_jax.errors import UserError
from score_sde_jax.tasks.masks import MASKS
from score_sde_jax.tasks.task import Grid, Indices, Inputs, Setup, Strips


class Observed(Inputs):
    """Observed images: "observed" (batch, observations, height, width, channels), and pictures beside them.

    `numbers` gives the numbers of the images that are observed for each image, (batch, observations).
    """

    samples_per_image = 1

    def __init__(self, setup: Setup, source: str | None) -> None:
        super().__init__(setup)
        self.source, self.description["source"] = open_source(source, setup)

    def numbers(self, indices: Indices) -> Int[np.ndarray, "batch observations"]:
        """Numbers of the images that are observed for images number `indices`."""
        raise NotImplementedError

    def __call__(self, indices: Indices) -> dict[str, np.ndarray]:
        """Arrays with one row for each of the images number `indices`."""
        return {"observed": self.observed(indices)}

    def observed(self, indices: Indices) -> Float[np.ndarray, "batch observations ..."]:
        """The observed images, in the value range."""
        numbers = self.numbers(indices) % len(self.source)
        pixels = dataclasses.replace(self.setup.pixels, levels=self.source.levels)  # files have levels of their own
        x0 = pixels.known(self.source.gather(numbers.ravel())[0])
        return x0.reshape(*numbers.shape, *x0.shape[1:])

    def pictures(self, stored: np.ndarray, extras: Mapping[str, np.ndarray]) -> dict[str, Grid | Strips]:
        """Strips of what is given, what became of it, and the observed image."""
        each = self.samples_per_image
        stored = stored[: max(each, len(stored) // each * each)]
        first = np.arange(0, len(stored), each)
        columns = [in_rows(stored, each), self.setup.pixels.stored(self.observed(first))]
        if "given" in extras:
            columns.insert(0, extras["given"][first][:, None])
        return {"observed.png": Strips(np.concatenate(columns, axis=1))}


def in_rows(images: np.ndarray, length: int) -> np.ndarray:
    """Rows of so many images; what does not fill the last one is blank."""
    num = math.ceil(len(images) / length)
    padded = np.full((num * length, *images.shape[1:]), 255, images.dtype)
    padded[: len(images)] = images
    return padded.reshape(num, length, *images.shape[1:])


# ------------------------------------------------------------------------- files


def open_source(path: str | None, setup: Setup) -> tuple[Dataset, Any]:
    """The images that are observed, of the run's shape, and what identifies them; UserError if they cannot be read."""
    if path is None:
        return setup.held_out(), dict(setup.about_held_out)
    place, (size, width, channels) = Path(path).expanduser(), setup.image_shape
    if not place.exists():
        raise UserError(f"--config.task.source={path}: no such file or folder")
    if size != width:
        raise UserError(f"--config.task.source={path}: images of {size} by {width} pixels are not square; leave it out")
    if place.is_dir() or place.suffix == ".zip":
        return image_folder(dir=path, image_size=size, channels=channels), {"folder": str(place.resolve())}
    if place.suffix == ".npz":
        archive = npz(dir=path, channels=channels)
        stored = archive.gather(np.arange(len(archive)))[0]
    else:
        try:
            stored = files.decode(str(place), channels)[None]
        except Exception as error:  # broken files make Pillow raise nearly anything
            raise UserError(f"--config.task.source={path}: not an image that can be read ({error})") from error
    resized = np.stack([files.resize(files.center_crop(image), size) for image in stored])
    return ArrayDataset(place.name, resized, labels=None), {"file": digest(place)}


def open_mask(path: str, image_shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """A mask of a file, 1 where pixels are known, and what identifies it; UserError if it cannot be read or used."""
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
    return (~hidden)[..., None].astype(np.float32), digest(place)


def digest(path: Path) -> str:
    """What identifies the content of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
