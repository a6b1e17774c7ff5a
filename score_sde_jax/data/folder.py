"""A folder, or a zip file, of one's own images of any size, format and mode."""

import io
import logging
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from score_sde_jax.data import images
from score_sde_jax.data.dataset import CACHE_BYTES, Dataset, DecodedDataset, declares
from score_sde_jax.errors import UserError


@declares(channels=3)
def image_folder(
    *,
    dir: str | None = None,
    image_size: int,
    channels: int = 3,
    labels: bool = False,
    cache_bytes: int = CACHE_BYTES,
) -> Dataset:
    """Every image below a folder or in a zip file: uint8 (image_size, image_size, channels).

    The largest central square, resized by area, in the order of the sorted paths. With `labels`,
    the folders directly below are the classes, in sorted order. A file that cannot be read is
    named once in a warning, and the next readable one stands in its place. Raises UserError for a
    folder without a readable image, or with labels asked for and an image in no class.
    """
    images.check_size(image_size, channels)
    root = Path(dir or "").expanduser()
    opened: Callable[[str], str | io.BytesIO]
    if dir and root.is_dir():
        names, opened = _names_below(root), lambda name: str(root / name)
    elif dir and zipfile.is_zipfile(root):
        archive = zipfile.ZipFile(root)
        names, opened = archive.namelist(), lambda name: io.BytesIO(archive.read(name))
    else:
        raise UserError(f"--config.data.dir={dir}: not a folder or zip file of images")
    paths = _image_paths(root, names)
    class_of, num_classes = _classes(root, paths) if labels else ([0] * len(paths), 0)
    reader = _Reader(root, paths, opened, image_size, channels)
    reader.read(0)  # a folder of broken files fails here, and not in a thread of the first batch

    def decode(indices: list[int]) -> Iterator[tuple[np.ndarray, int]]:
        for image, position in map(reader.read, indices):
            yield image, class_of[position]

    shape = (image_size, image_size, channels)
    return DecodedDataset("image_folder", decode, len(paths), shape, num_classes, cache_bytes)


def _names_below(root: Path) -> list[str]:
    """Paths of all files below a folder, relative to it."""
    below = [Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names]
    return [path.relative_to(root).as_posix() for path in below]


def _image_paths(root: Path, names: list[str]) -> list[Path]:
    """Those files whose name ends like an image's, sorted; UserError if there is none."""
    suffixes = Image.registered_extensions()
    paths = map(Path, names)
    found = [path for path in paths if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    if not found:
        raise UserError(f"{root}: no image in this folder or below it")
    return sorted(found)


def _classes(root: Path, paths: list[Path]) -> tuple[list[int], int]:
    """Class of each path, and the number of classes."""
    loose = [path for path in paths if len(path.parts) == 1]
    if loose:
        raise UserError(f"--config.data.labels=True: {root / loose[0]} lies in no class's folder")
    number = {name: i for i, name in enumerate(sorted({path.parts[0] for path in paths}))}
    return [number[path.parts[0]] for path in paths], len(number)


class _Reader:
    """Decodes files, passing over those that cannot be read."""

    def __init__(
        self,
        root: Path,
        paths: list[Path],
        opened: Callable[[str], str | io.BytesIO],
        image_size: int,
        channels: int,
    ) -> None:
        self._root = root
        self._paths = paths
        self._opened = opened
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
                image = images.decode(self._opened(self._paths[position].as_posix()), self._channels)
            except Exception as error:  # broken files make Pillow raise nearly anything
                self._report(position, error)
            else:
                return images.resize(images.centre_crop(image), self._image_size), position
        raise UserError(f"{self._root}: none of its {num} image files can be read")

    def _report(self, position: int, error: Exception) -> None:
        if position not in self._unreadable:  # another thread may have met it meanwhile
            self._unreadable.add(position)
            logging.warning("%s: skipped, not readable (%s)", self._root / self._paths[position], error)
