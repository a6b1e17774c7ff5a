"""Images in npz files, such as those of `--mode=sample`."""

import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from score_sde_jax.data.dataset import ArrayDataset, Dataset, check_shape, with_spec
from score_sde_jax.errors import UserError

# TypeError: numpy's error if the file is an npy file, which has one array and no keys.
READ_ERRORS = (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)


@with_spec()
def npz(*, dir: str | None = None, image_size: int | None = None, channels: int | None = None) -> Dataset:
    """Open the images of an npz file, or of a directory of samples: images.npz and its further shards.

    Key `images` has uint8 (num, height, width[, channels]); the optional key `labels` has integers >= 0, (num,).

    Args:
        dir: path of the file or directory; by default the working directory.
        image_size: expected height and width in pixels; None accepts any.
        channels: expected channels, 1 or 3; None accepts either.

    Raises:
        UserError: a file is missing, corrupted or has other arrays, or images of another shape are expected.
    """
    path = Path(dir or ".").expanduser()
    paths = (shards(path, "images") or [path / "images.npz"]) if path.is_dir() else [path]
    parts = [_read(each, dir) for each in paths]
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
        with path.open("rb") as file, np.load(file) as archive:
            arrays = {key: archive[key] for key in ("images", "labels") if key in archive}
    except FileNotFoundError as error:
        raise UserError(f"--config.data.dir={dir}: no file {path}") from error
    except READ_ERRORS as error:
        raise UserError(f"{path}: not a readable npz file ({error})") from error
    if "images" not in arrays:
        raise UserError(f"{path}: no key 'images'")
    arrays["images"] = _checked_images(path, arrays["images"])
    if "labels" in arrays:
        _check_labels(path, arrays["labels"], len(arrays["images"]))
    return arrays


def _checked_images(path: Path, images: np.ndarray) -> np.ndarray:
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise UserError(
            f"{path}: images are {images.dtype} {images.shape}, must be uint8 (num, height, width[, channels])"
        )
    if images.shape[3] not in (1, 3):
        raise UserError(f"{path}: images have {images.shape[3]} channels, must have 1 or 3")
    return images


def _check_labels(path: Path, labels: np.ndarray, num: int) -> None:
    integers = np.issubdtype(labels.dtype, np.integer)
    if not integers or labels.shape != (num,) or labels.min() < 0:
        raise UserError(f"{path}: labels are {labels.dtype} {labels.shape}, must be {num} integers >= 0")
