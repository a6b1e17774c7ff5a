"""Images in npz files, such as those of `--mode=sample`."""

import math
import re
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from score_sde_jax import paths
from score_sde_jax.data.dataset import ArrayDataset, Channels, Dataset, Size, check_shape, with_spec
from score_sde_jax.errors import UserError

IMAGES, LABELS = ("images", "arr_0"), ("labels", "arr_1")
"""Keys of images and labels, each with the name that np.savez gives to an array without a name."""
KEY = "--config.data.dir"
HEADER_BYTES = 2**16
"""Upper bound on the length of the header of an npy file."""
MAX_CLASSES = 2**16
"""Largest number of classes of a network."""


@with_spec()
def npz(*, dir: str | None = None, image_size: Size | None = None, channels: Channels | None = None) -> Dataset:
    """Open the images of an npz file, or of a directory of samples: images.npz and its further shards.

    Key `images` has uint8 (num, height, width[, channels]); the optional key `labels` has integers >= 0, (num,). Arrays
    without names, which np.savez calls `arr_0` and `arr_1`, stand for the two in this order.

    Args:
        dir: path of the file or directory; by default the working directory.
        image_size: expected height and width in pixels; None accepts any.
        channels: expected channels, 1 or 3; None accepts either.

    Raises:
        UserError: a file is missing, corrupted or has other arrays, or images of another shape are expected.
    """
    path = paths.expanded(dir or ".", KEY)
    kind = paths.kind(path, KEY, dir)
    if kind == "pipe or device":
        raise UserError(f"{KEY}={dir}: expected an npz file, found a {kind}")
    files = (shards(path, "images") or [path / "images.npz"]) if kind == "folder" else [path]
    parts = [_read(each, dir) for each in files]
    images = np.concatenate([arrays["images"] for arrays in parts])
    has_labels = all("labels" in arrays for arrays in parts)
    labels = np.concatenate([arrays["labels"] for arrays in parts]) if has_labels else None
    return check_shape(ArrayDataset("npz", images, labels), image_size, channels)


def shards(directory: Path, key: str) -> list[Path]:
    """Return the shards of a set of samples in order: key.npz, key-000000100.npz, ...

    Args:
        directory: directory of the samples.
        key: first part of the names of the files.
    """
    names = re.compile(rf"{key}(-\d+)?\.npz")
    files = [path for path in directory.glob(f"{key}*.npz") if names.fullmatch(path.name)]
    return sorted(files, key=lambda path: (len(path.name), path.name))


def _read(path: Path, dir: str | None) -> dict[str, np.ndarray]:
    """Read and check the images and labels of one file."""
    try:
        with path.open("rb") as file:
            beginning = file.read(6)
            if beginning == b"\x93NUMPY":
                raise UserError(f"{path}: an npy file; save it with np.savez(FILE, images=ARRAY)")
            file.seek(0)
            with np.load(file) as archive:
                _check_sizes(path)
                stored = {key: archive[key] for key in (*IMAGES, *LABELS) if key in archive}
                keys = archive.files
    except FileNotFoundError as error:
        raise UserError(f"{KEY}={dir}: no file {path}") from error
    except UserError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise many types for corrupted files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path}: not a readable npz file ({reason})") from error
    arrays = {}
    for name, (key, unnamed) in {"images": IMAGES, "labels": LABELS}.items():
        array = stored.get(key, stored.get(unnamed))
        if array is not None:
            arrays[name] = array
    if not isinstance(arrays.get("images"), np.ndarray):
        raise UserError(f"{path}: no array 'images'; its keys are {', '.join(keys[:10]) or 'none'}")
    arrays["images"] = _checked_images(path, arrays["images"])
    if "labels" in arrays:
        _check_labels(path, arrays["labels"], len(arrays["images"]))
    return arrays


def _check_sizes(path: Path) -> None:
    """Raise UserError if the header of an array declares another size than the file has, before memory is allocated."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            with archive.open(member) as file:
                shape, _, dtype = read_header(file)
            declared = math.prod(shape) * dtype.itemsize
            if not dtype.hasobject and not 0 <= member.file_size - declared < HEADER_BYTES:
                raise UserError(
                    f"{path}: {member.filename} declares {declared:,} bytes of shape {shape}, the file has "
                    f"{member.file_size:,}"
                )


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, order and dtype from the header of an npy file."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _checked_images(path: Path, images: np.ndarray) -> np.ndarray:
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        hint = ""
        if images.ndim == 4 and np.issubdtype(images.dtype, np.floating):
            hint = "; for values from 0 to 1, save np.rint(255 * images).astype(np.uint8)"
        raise UserError(
            f"{path}: images are {images.dtype} {images.shape}, must be uint8 (num, height, width[, channels]){hint}"
        )
    if images.shape[3] not in (1, 3):
        hint = (
            "; (num, channels, height, width) needs images.transpose(0, 2, 3, 1)" if images.shape[1] in (1, 3) else ""
        )
        raise UserError(f"{path}: images are {images.shape}, must have 1 or 3 channels in the last axis{hint}")
    return images


def _check_labels(path: Path, labels: np.ndarray, num: int) -> None:
    integers = np.issubdtype(labels.dtype, np.integer)
    if not integers or labels.shape != (num,) or labels.min() < 0 or labels.max() >= MAX_CLASSES:
        one_hot = "; one-hot labels need labels.argmax(1)" if labels.ndim == 2 and len(labels) == num else ""
        raise UserError(
            f"{path}: labels are {labels.dtype} {labels.shape}, must be {num} integers >= 0 and < {MAX_CLASSES:,}"
            f"{one_hot}"
        )
