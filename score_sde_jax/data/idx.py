"""MNIST and Fashion-MNIST, read from the idx files that they are published as, or from TFDS."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from score_sde_jax.data import tfds_source
from score_sde_jax.data.dataset import ArrayDataset, Dataset, check_choice, check_declared, declares
from score_sde_jax.errors import UserError

DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
PREFIXES = {"train": "train", "test": "t10k"}
IMAGES_FILE = "{prefix}-images-idx3-ubyte"
LABELS_FILE = "{prefix}-labels-idx1-ubyte"


@declares(image_size=28, channels=1, train_images=60_000)
def mnist(
    dir: str | None = None,
    split: str = "train",
    image_size: int | None = None,
    channels: int | None = None,
) -> Dataset:
    """MNIST: uint8 (28, 28, 1), ten classes, splits "train" (60,000) and "test" (10,000).

    `dir` holds the idx files, gzipped or not, or TFDS data; without it, TFDS's usual place.
    Raises UserError where the data are missing, damaged, or differ from what is declared.
    """
    check_choice("--config.data.split", split, tuple(PREFIXES))
    dataset = _from_idx("mnist", dir, split) or tfds_source.labelled("mnist", dir, split)
    return check_declared(dataset, image_size, channels)


@declares(image_size=28, channels=1, train_images=60_000)
def fashion_mnist(
    dir: str | None = None,
    split: str = "train",
    image_size: int | None = None,
    channels: int | None = None,
) -> Dataset:
    """Fashion-MNIST, in the format of MNIST (arXiv 1708.07747).

    As `mnist`; without `dir`, the Debian package dataset-fashion-mnist is looked for first.
    """
    check_choice("--config.data.split", split, tuple(PREFIXES))
    dataset = _from_idx("fashion_mnist", dir or DEBIAN_FASHION_MNIST, split)
    if dataset is None:
        hint = "`apt-get install dataset-fashion-mnist`, or "
        dataset = tfds_source.labelled("fashion_mnist", dir, split, hint)
    return check_declared(dataset, image_size, channels)


def _from_idx(name: str, dir: str | None, split: str) -> Dataset | None:
    """The split from the idx files in `dir`, or None where there are no such files."""
    files = [pattern.format(prefix=PREFIXES[split]) for pattern in (IMAGES_FILE, LABELS_FILE)]
    paths = [find_idx(dir, file) for file in files] if dir else [None, None]
    if paths == [None, None]:
        return None
    if None in paths:
        raise UserError(f"{dir}: {files[paths.index(None)]}[.gz] is missing beside its pair")
    images, labels = (read_idx(path) for path in paths if path is not None)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise UserError(
            f"{paths[0]} and {paths[1]}: shapes {images.shape} and {labels.shape} are not images with one label each"
        )
    return ArrayDataset(name, images[..., None], labels)


def find_idx(dir: str | Path, file: str) -> Path | None:
    """The idx file of that name in a directory, as it is or gzipped, or None."""
    candidates = (Path(dir).expanduser() / file, Path(dir).expanduser() / f"{file}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Array of bytes in an idx file, gzipped if its name ends in .gz.

    The format: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension as
    a big-endian 32 bit integer, the values. Raises UserError where the file is not that.
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
        raise UserError(f"{path}: {values.size} values where shape {shape} needs {math.prod(shape)}")
    return values.reshape(shape)
