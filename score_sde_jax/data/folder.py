"""A folder or zip file of images of any size."""

import io
import logging
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from score_sde_jax.data import images
from score_sde_jax.data.dataset import CACHE_BYTES, Dataset, DecodedDataset, with_spec
from score_sde_jax.errors import UserError


@with_spec(channels=3)
def image_folder(
    *,
    dir: str | None = None,
    image_size: int,
    channels: int = 3,
    labels: bool = False,
    cache_bytes: int = CACHE_BYTES,
) -> Dataset:
    """Open every image below a folder or in a zip file: uint8 (image_size, image_size, channels).

    Images are in the order of their sorted paths. Each is cropped to its largest central square and resized by
    `images.resize`. A file that Pillow cannot decode, or that has floating-point pixels, is skipped with one warning;
    the next readable file takes its index.

    Args:
        dir: path of the folder or zip file.
        image_size: height and width of the resized images, in pixels, >= 1.
        channels: 3 for RGB, 1 for gray.
        labels: whether the folders directly below `dir` are the classes, in sorted order.
        cache_bytes: limit of the decoded images in memory, in bytes; a larger dataset is decoded in every epoch.

    Raises:
        UserError: no readable image, or with `labels` an image outside the class folders.
    """
    images.check_size(image_size, channels)
    root = Path(dir or "").expanduser()
    open_file: Callable[[str], str | io.BytesIO]
    if dir and root.is_dir():
        names, open_file = _names_below(root), lambda name: str(root / name)
    elif dir and zipfile.is_zipfile(root):
        archive = zipfile.ZipFile(root)
        names, open_file = archive.namelist(), lambda name: io.BytesIO(archive.read(name))
    else:
        given = f"--config.data.dir={dir}: not" if dir else "--config.data.dir is missing: expected"
        raise UserError(f"{given} a folder or zip file of images")
    paths = _image_paths(root, names)
    class_of, num_classes = _classes(root, paths) if labels else ([0] * len(paths), 0)
    reader = _Reader(root, paths, open_file, image_size, channels)
    reader.read(0)  # a folder without a readable image fails here, not in a thread of the first batch

    def decode(indices: list[int]) -> Iterator[tuple[np.ndarray, int]]:
        for image, position in map(reader.read, indices):
            yield image, class_of[position]

    shape = (image_size, image_size, channels)
    return DecodedDataset("image_folder", decode, len(paths), shape, num_classes, cache_bytes)


def _names_below(root: Path) -> list[str]:
    """Return the relative paths of all files below a folder."""
    below = [Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names]
    return [path.relative_to(root).as_posix() for path in below]


def _image_paths(root: Path, names: list[str]) -> list[Path]:
    """Return the sorted paths with a suffix of an image format; UserError if there is none."""
    suffixes = Image.registered_extensions()
    paths = map(Path, names)
    image_paths = [path for path in paths if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    if not image_paths:
        raise UserError(f"{root}: no image in this folder or below it")
    return sorted(image_paths)


def _classes(root: Path, paths: list[Path]) -> tuple[list[int], int]:
    """Return the class of each path, and the number of classes."""
    loose = [path for path in paths if len(path.parts) == 1]
    if loose:
        raise UserError(f"--config.data.labels=True: {root / loose[0]} is in no class folder; move it into one")
    number = {name: i for i, name in enumerate(sorted({path.parts[0] for path in paths}))}
    return [number[path.parts[0]] for path in paths], len(number)


class _Reader:
    """Decodes image files and skips the unreadable ones."""

    def __init__(
        self,
        root: Path,
        paths: list[Path],
        open_file: Callable[[str], str | io.BytesIO],
        image_size: int,
        channels: int,
    ) -> None:
        self._root = root
        self._paths = paths
        self._open_file = open_file
        self._image_size = image_size
        self._channels = channels
        self._unreadable: set[int] = set()

    def read(self, index: int) -> tuple[images.Uint8Image, int]:
        """Return image and position of the first readable file at or after `index`; the first follows the last."""
        num = len(self._paths)
        for position in (np.arange(index, index + num) % num).tolist():
            if position in self._unreadable:
                continue
            try:
                image = images.decode(self._open_file(self._paths[position].as_posix()), self._channels)
            except Exception as error:  # Pillow raises many types for corrupted files
                self._report(position, error)
            else:
                return images.resize(images.center_crop(image), self._image_size), position
        raise UserError(f"{self._root}: none of its {num} image files can be read")

    def _report(self, position: int, error: Exception) -> None:
        if position not in self._unreadable:  # another thread may have reported it in the meantime
            self._unreadable.add(position)
            logging.warning("%s: skipped, not readable (%s)", self._root / self._paths[position], error)
