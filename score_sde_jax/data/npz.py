"""Images in one npz file, such as `--mode=sample` writes."""

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
    """Images from an npz file, or from images.npz in a directory.

    Key `images` holds uint8 (num, height, width) or (num, height, width, channels), and `labels`,
    where there is one, whole numbers from 0, (num,). Raises UserError where the file is missing,
    damaged, or holds something else.
    """
    path = Path(dir or ".").expanduser()
    path = path / "images.npz" if path.is_dir() else path
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            arrays = {key: file[key] for key in ("images", "labels") if key in file}
    except FileNotFoundError as error:
        raise UserError(f"--config.data.dir={dir}: there is no file {path}") from error
    except READ_ERRORS as error:
        raise UserError(f"{path}: not a readable npz file ({error})") from error
    if "images" not in arrays:
        raise UserError(f"{path}: has no key 'images'")
    images, labels = _checked_images(path, arrays["images"]), arrays.get("labels")
    if labels is not None:
        _check_labels(path, labels, len(images))
    return check_declared(ArrayDataset("npz", images, labels), image_size, channels)


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
