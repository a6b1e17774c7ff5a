"""Images in one npz file, such as `--mode=sample` writes."""

import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from score_sde_jax.data.dataset import ArrayDataset, Dataset, check_declared, declares
from score_sde_jax.errors import UserError

# TypeError: a single array, as of an npy file, is no archive to open.
READ_ERRORS = (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)


@declares()
def npz(*, dir: str | None = None, image_size: int | None = None, channels: int | None = None) -> Dataset:
    """Images from an npz file, or from a directory of samples: images.npz and the shards that follow it.

    Key `images` holds uint8 (num, height, width[, channels]), and `labels`, if there is one, integers from 0, (num,).
    Raises UserError if a file is missing, corrupted, or holds something else.
    """
    path = Path(dir or ".").expanduser()
    read = [_read(each, dir) for each in (shards(path, "images") or [path / "images.npz"] if path.is_dir() else [path])]
    images = np.concatenate([arrays["images"] for arrays in read])
    labels = None if any("labels" not in arrays for arrays in read) else [arrays["labels"] for arrays in read]
    return check_declared(
        ArrayDataset("npz", images, None if labels is None else np.concatenate(labels)), image_size, channels
    )


def shards(directory: Path, key: str) -> list[Path]:
    """Files of a set of samples in the order of their numbers: key.npz, key-000000100.npz, ..."""
    names = re.compile(rf"{key}(-\d+)?\.npz")
    files = [path for path in directory.glob(f"{key}*.npz") if names.fullmatch(path.name)]
    return sorted(files, key=lambda path: (len(path.name), path.name))


def _read(path: Path, dir: str | None) -> dict[str, np.ndarray]:
    """Images and labels of one file."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            arrays = {key: file[key] for key in ("images", "labels") if key in file}
    except FileNotFoundError as error:
        raise UserError(f"--config.data.dir={dir}: there is no file {path}") from error
    except READ_ERRORS as error:
        raise UserError(f"{path}: not a readable npz file ({error})") from error
    if "images" not in arrays:
        raise UserError(f"{path}: has no key 'images'")
    arrays["images"] = _checked_images(path, arrays["images"])
    if "labels" in arrays:
        _check_labels(path, arrays["labels"], len(arrays["images"]))
    return arrays


def _checked_images(path: Path, images: np.ndarray) -> np.ndarray:
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise UserError(
            f"{path}: images are {images.dtype} {images.shape}; uint8 (num, height, width[, channels]) is needed"
        )
    if images.shape[3] not in (1, 3):
        raise UserError(f"{path}: images have {images.shape[3]} channels; 1 or 3 is needed")
    return images


def _check_labels(path: Path, labels: np.ndarray, num: int) -> None:
    whole = np.issubdtype(labels.dtype, np.integer)
    if not whole or labels.shape != (num,) or labels.min() < 0:
        raise UserError(f"{path}: labels are {labels.dtype} {labels.shape}; {num} whole numbers from 0 are needed")
