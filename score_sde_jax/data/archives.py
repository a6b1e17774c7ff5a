"""Readers of the published archives of MNIST, Fashion-MNIST, CIFAR-10 and CelebA.

Each reader takes the directory of the archives and the TFDS features of the dataset. It returns the length of each
split and an iterator of its examples, as `features.encode_example` takes them. Images are encoded files: the JPEG files
of CelebA unchanged, arrays as PNG. A reader raises UserError for a corrupted archive.
"""

import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from score_sde_jax.data.idx import IMAGES_FILE, LABELS_FILE, PREFIXES, read_idx
from score_sde_jax.errors import UserError

Split = tuple[int, Iterator[dict[str, Any]]]

CIFAR10_TAR = "cifar-10-binary.tar.gz"
CIFAR10_BATCHES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}
CELEB_A_ZIP = "img_align_celeba.zip"
CELEB_A_SPLITS = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True)
class Archives:
    """The archives of a dataset.

    Attributes:
        files: names of the archives.
        read: reader of the archives.
    """

    files: tuple[str, ...]
    read: Callable[[Path, Any], dict[str, Split]]


def read_idx_archives(archives: Path, features: Any) -> dict[str, Split]:
    """Read MNIST or Fashion-MNIST: gzipped idx files of images and labels."""
    splits = {}
    for split, prefix in PREFIXES.items():
        images_path = archives / f"{IMAGES_FILE.format(prefix=prefix)}.gz"
        labels_path = archives / f"{LABELS_FILE.format(prefix=prefix)}.gz"
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.shape != (len(labels), *features["image"].shape[:2]):
            raise UserError(f"{images_path}: shape {images.shape} for {len(labels)} labels; download both again")
        _check_labels(labels_path, labels, features)
        splits[split] = (len(labels), _idx_examples(images, labels))
    return splits


def _idx_examples(images: np.ndarray, labels: np.ndarray) -> Iterator[dict[str, Any]]:
    for image, label in zip(images, labels, strict=True):
        yield {"image": _png(image), "label": int(label)}


def read_cifar10(archives: Path, features: Any) -> dict[str, Split]:
    """Read CIFAR-10: records of a label byte and 3 x 32 x 32 color bytes, in six files of a tar archive."""
    path = archives / CIFAR10_TAR
    try:
        with tarfile.open(path) as tar:
            files = {Path(member.name).name: tar.extractfile(member) for member in tar}
            content = {name: file.read() for name, file in files.items() if file is not None}
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise UserError(f"{path}: not a readable tar file ({error}); download it again") from error
    members = {"batches.meta.txt", *sum(CIFAR10_BATCHES.values(), ())}
    if missing := sorted(members - set(content)):
        raise UserError(f"{path}: no file {missing[0]} in it; download it again")
    features["label"].names = content["batches.meta.txt"].decode().split()
    splits = {}
    for split, batches in CIFAR10_BATCHES.items():
        data = b"".join(content[batch] for batch in batches)
        if not data or len(data) % 3073:
            raise UserError(f"{path}: the files of split {split} are not records of 3,073 bytes; download it again")
        records = np.frombuffer(data, np.uint8).reshape(-1, 3073)
        _check_labels(path, records[:, 0], features)
        splits[split] = (len(records), _cifar10_examples(split, records))
    return splits


def _cifar10_examples(split: str, records: np.ndarray) -> Iterator[dict[str, Any]]:
    for i, record in enumerate(records):
        image = record[1:].reshape(3, 32, 32).transpose(1, 2, 0)
        yield {"id": f"{split}_{i:05d}", "image": _png(image), "label": int(record[0])}


def read_celeb_a(archives: Path, features: Any) -> dict[str, Split]:
    """Read CelebA: a zip archive of JPEG files, and four tables with a row for each file."""
    partition_path = archives / "list_eval_partition.txt"
    partition = _table(partition_path, ["split"])
    tables = {
        "landmarks": _table(archives / "list_landmarks_align_celeba.txt", list(features["landmarks"]), headed=True),
        "attributes": _table(archives / "list_attr_celeba.txt", list(features["attributes"]), headed=True),
        "identity": _table(archives / "identity_CelebA.txt", list(features["identity"])),
    }
    members = _zip_members(archives / CELEB_A_ZIP)
    sources: dict[str, Collection[str]] = {**tables, CELEB_A_ZIP: members}
    splits = {}
    for split, number in CELEB_A_SPLITS.items():
        names = sorted(name for name, row in partition.items() if row["split"] == number)
        for source, names_in_source in sources.items():
            if missing := [name for name in names if name not in names_in_source]:
                raise UserError(f"{partition_path}: {missing[0]} is not in {source}")
        files = _zip_files(archives / CELEB_A_ZIP, [members[name] for name in names])
        splits[split] = (len(names), _celeb_a_examples(names, files, tables))
    return splits


def _celeb_a_examples(
    names: list[str], files: Iterator[bytes], tables: dict[str, dict[str, dict[str, int]]]
) -> Iterator[dict[str, Any]]:
    for name, file in zip(names, files, strict=True):
        rows = {key: table[name] for key, table in tables.items()}
        attributes = {key: value > 0 for key, value in rows["attributes"].items()}  # the table has -1 and 1
        yield rows | {"image": io.BytesIO(file), "attributes": attributes}


def _table(path: Path, columns: list[str], headed: bool = False) -> dict[str, dict[str, int]]:
    """Read rows "name value value ..." by name; a headed table starts with lines of their number and the columns."""
    lines = path.read_text().splitlines()
    if headed and (len(lines) < 2 or lines[1].split() != columns):
        raise UserError(f"{path}: line 2 does not name the columns {' '.join(columns[:3])} ...")
    table = {}
    for number, line in enumerate(lines[2:] if headed else lines, 3 if headed else 1):
        name, *values = line.split() or [""]
        try:
            table[name] = dict(zip(columns, map(int, values), strict=True))
        except ValueError as error:
            raise UserError(f"{path}: line {number} is not a name and {len(columns)} integers") from error
    return table


def _zip_members(path: Path) -> dict[str, str]:
    """Return the members of a zip archive by their file names."""
    try:
        with zipfile.ZipFile(path) as file:
            return {Path(member).name: member for member in file.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable zip file ({error}); download it again") from error


def _zip_files(path: Path, members: list[str]) -> Iterator[bytes]:
    with zipfile.ZipFile(path) as file:
        for member in members:
            try:
                yield file.read(member)
            except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
                raise UserError(f"{path}: {member} is corrupted ({error}); download it again") from error


def _check_labels(path: Path, labels: np.ndarray, features: Any) -> None:
    num_classes = features["label"].num_classes
    if labels.size and labels.max() >= num_classes:
        raise UserError(f"{path}: label {labels.max()} must be < {num_classes}, the number of classes")


def _png(image: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    file.seek(0)
    return file


IDX_ARCHIVES = Archives(
    tuple(
        f"{pattern.format(prefix=prefix)}.gz" for prefix in PREFIXES.values() for pattern in (IMAGES_FILE, LABELS_FILE)
    ),
    read_idx_archives,
)
ARCHIVES = {
    "mnist": IDX_ARCHIVES,
    "fashion_mnist": IDX_ARCHIVES,
    "cifar10": Archives((CIFAR10_TAR,), read_cifar10),
    "celeb_a": Archives(
        (
            CELEB_A_ZIP,
            "list_eval_partition.txt",
            "list_landmarks_align_celeba.txt",
            "list_attr_celeba.txt",
            "identity_CelebA.txt",
        ),
        read_celeb_a,
    ),
}
