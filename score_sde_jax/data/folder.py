"""A folder of one's own images, of any size, format and mode."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from score_sde_jax.data import images
from score_sde_jax.data.dataset import CACHE_BYTES, Dataset, DecodedDataset
from score_sde_jax.errors import UserError


def image_folder(
    *,
    dir: str | None = None,
    image_size: int,
    channels: int = 3,
    labels: bool = False,
    cache_bytes: int = CACHE_BYTES,
) -> Dataset:
    """Every image below a folder: uint8 (image_size, image_size, channels).

    The largest central square, resized by area, in the order of the sorted paths. With `labels`,
    the folders directly below are the classes, in sorted order. A file that cannot be read is
    named once in a warning, and the next readable one stands in its place. Raises UserError for a
    folder without a readable image, or with labels asked for and an image in no class.
    """
    images.check_size(image_size, channels)
    root = Path(dir or "").expanduser()
    if not dir or not root.is_dir():
        raise UserError(f"data.dir={dir!r}: not a folder; give yours with --config.data.dir=FOLDER")
    paths = _image_paths(root)
    class_of, num_classes = _classes(root, paths) if labels else ([0] * len(paths), 0)
    reader = _Reader(paths, image_size, channels)
    reader.read(0)  # a folder of broken files fails here, and not in a thread of the first batch

    def decode(indices: list[int]) -> Iterator[tuple[np.ndarray, int]]:
        for image, position in map(reader.read, indices):
            yield image, class_of[position]

    shape = (image_size, image_size, channels)
    return DecodedDataset("image_folder", decode, len(paths), shape, num_classes, cache_bytes)


def _image_paths(root: Path) -> list[Path]:
    """Files below a folder whose name ends like an image's, sorted; UserError if there is none."""
    suffixes = Image.registered_extensions()
    found = [
        Path(folder, name)
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
        if Path(name).suffix.lower() in suffixes and not name.startswith(".")
    ]
    if not found:
        raise UserError(f"{root}: no image in this folder or below it")
    return sorted(found)


def _classes(root: Path, paths: list[Path]) -> tuple[list[int], int]:
    """Class of each path, and the number of classes."""
    parts = [path.relative_to(root).parts for path in paths]
    loose = [path for path, part in zip(paths, parts, strict=True) if len(part) == 1]
    if loose:
        raise UserError(f"data.labels=True: {loose[0]} lies in no class's folder")
    number = {name: i for i, name in enumerate(sorted({part[0] for part in parts}))}
    return [number[part[0]] for part in parts], len(number)


class _Reader:
    """Decodes files, passing over those that cannot be read."""

    def __init__(self, paths: list[Path], image_size: int, channels: int) -> None:
        self._paths = paths
        self._image_size = image_size
        self._channels = channels
        self._unreadable: set[int] = set()

    def read(self, index: int) -> tuple[images.Uint8Image, int]:
        """Image and position of the first readable file at or after `index`, in a circle."""
        num = len(self._paths)
        for position in (np.arange(index, index + num) % num).tolist():
            if position in self._unreadable:
                continue
            try:
                image = images.decode(str(self._paths[position]), self._channels)
            except Exception as error:  # broken files make Pillow raise nearly anything
                self._report(position, error)
            else:
                return images.resize(images.centre_crop(image), self._image_size), position
        raise UserError(f"{self._paths[0].parent}: none of its {num} image files can be read")

    def _report(self, position: int, error: Exception) -> None:
        if position not in self._unreadable:  # another thread may have met it meanwhile
            self._unreadable.add(position)
            logging.warning("%s: skipped, not readable (%s)", self._paths[position], error)
