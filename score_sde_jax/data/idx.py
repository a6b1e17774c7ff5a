"""MNIST and Fashion-MNIST, from the published idx files or from TFDS data."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from score_sde_jax.data import tfds_source
from score_sde_jax.data.dataset import ArrayDataset, Channels, Dataset, Size, check_choice, check_shape, with_spec
from score_sde_jax.errors import UserError

DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
PREFIXES = {"train": "train", "test": "t10k"}
IMAGES_FILE = "{prefix}-images-idx3-ubyte"
LABELS_FILE = "{prefix}-labels-idx1-ubyte"


@with_spec(image_size=28, channels=1, train_images=60_000)
def mnist(
    dir: str | None = None,
    split: str = "train",
    image_size: Size | None = None,
    channels: Channels | None = None,
) -> Dataset:
    """Open MNIST: uint8 (28, 28, 1), ten classes, splits "train" (60,000) and "test" (10,000).

    Args:
        dir: directory of the idx files (gzipped or not) or of TFDS data; by default $TFDS_DATA_DIR or
            ~/tensorflow_datasets.
        split: "train" or "test".
        image_size: expected height and width in pixels: 28, or None.
        channels: expected channels: 1, or None.

    Raises:
        UserError: missing or corrupted data, unknown split, or images of another shape are expected.
    """
    check_choice("--config.data.split", split, tuple(PREFIXES))
    dataset = _from_idx("mnist", dir, split) or tfds_source.labeled("mnist", dir, split)
    return check_shape(dataset, image_size, channels)


@with_spec(image_size=28, channels=1, train_images=60_000)
def fashion_mnist(
    dir: str | None = None,
    split: str = "train",
    image_size: Size | None = None,
    channels: Channels | None = None,
) -> Dataset:
    """Open Fashion-MNIST: uint8 (28, 28, 1), ten classes, splits "train" (60,000) and "test" (10,000).

    Args:
        dir: directory of the idx files (gzipped or not) or of TFDS data; by default the files of the Debian package
            dataset-fashion-mnist, then $TFDS_DATA_DIR or ~/tensorflow_datasets.
        split: "train" or "test".
        image_size: expected height and width in pixels: 28, or None.
        channels: expected channels: 1, or None.

    Raises:
        UserError: missing or corrupted data, unknown split, or images of another shape are expected.

    Reference: arXiv 1708.07747.
    """
    check_choice("--config.data.split", split, tuple(PREFIXES))
    dataset = _from_idx("fashion_mnist", dir or DEBIAN_FASHION_MNIST, split)
    if dataset is None:
        hint = "`apt-get install dataset-fashion-mnist`, or "
        dataset = tfds_source.labeled("fashion_mnist", dir, split, hint)
    return check_shape(dataset, image_size, channels)


def _from_idx(name: str, dir: str | None, split: str) -> Dataset | None:
    """Return the split from the idx files in `dir`; None if `dir` has no idx files."""
    files = [pattern.format(prefix=PREFIXES[split]) for pattern in (IMAGES_FILE, LABELS_FILE)]
    paths = [find_idx(dir, file) for file in files] if dir else [None, None]
    if paths == [None, None]:
        return None
    if None in paths:
        raise UserError(f"{dir}: {files[paths.index(None)]}[.gz] is missing; download it")
    images, labels = (read_idx(path) for path in paths if path is not None)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise UserError(
            f"{paths[0]} and {paths[1]}: shapes {images.shape} and {labels.shape} are not images with one label each"
        )
    return ArrayDataset(name, images[..., None], labels)


def find_idx(dir: str | Path, file: str) -> Path | None:
    """Return the path of an idx file in a directory, plain or gzipped; None if it is missing.

    Args:
        dir: directory of the file.
        file: name without ".gz".
    """
    candidates = (Path(dir).expanduser() / file, Path(dir).expanduser() / f"{file}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Read the array of bytes in an idx file.

    The format is two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension as a big-endian 32-bit
    integer, and the values.

    Args:
        path: the file, gzipped if its name ends in .gz.

    Raises:
        UserError: the file is not an idx file of bytes.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not readable ({error}); download it again") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise UserError(f"{path}: not an idx file of bytes; download it again")
    shape = np.frombuffer(data, ">u4", data[3], offset=4).tolist()
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if math.prod(shape) != values.size:
        raise UserError(f"{path}: {values.size} values, but shape {shape} needs {math.prod(shape)}; download it again")
    return values.reshape(shape)
