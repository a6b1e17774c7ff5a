"""Data sets in the format of TensorFlow Datasets, read without TensorFlow.

The files are array_record shards, as `score_sde_jax.data.prepare` writes them, or TFDS itself when
it is told `file_format="array_record"`.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from score_sde_jax.data import images
from score_sde_jax.data.dataset import CACHE_BYTES, Dataset, DecodedDataset, check_declared, declares
from score_sde_jax.errors import UserError


@declares(image_size=32, channels=3, train_images=50_000)
def cifar10(
    dir: str | None = None,
    split: str = "train",
    image_size: int | None = None,
    channels: int | None = None,
) -> Dataset:
    """CIFAR-10: uint8 (32, 32, 3), ten classes, splits "train" (50,000) and "test" (10,000).

    `dir` holds a folder cifar10 of TFDS data; without it, TFDS's usual place. A slice such as
    "train[:1000]" is a split. Raises UserError where the data are missing or differ from what is
    declared.
    """
    return check_declared(labelled("cifar10", dir, split), image_size, channels)


@declares(image_size=64, channels=3, train_images=162_770)
def celeb_a(
    dir: str | None = None,
    split: str = "train",
    image_size: int = 64,
    crop: int = 140,
    channels: int = 3,
    cache_bytes: int = CACHE_BYTES,
) -> Dataset:
    """CelebA: faces, uint8 (image_size, image_size, channels), unlabelled.

    The central `crop` pixels of the aligned 178 by 218 images, resized by area: 140 to 64 as in
    NCSNv2 and score_sde, 140 to 32 as in NCSN. Splits "train" (162,770), "validation" (19,867),
    "test" (19,962) and slices of them. `dir` as in `cifar10`.
    """
    images.check_size(image_size, channels)
    if not 1 <= crop <= 178:
        raise UserError(f"--config.data.crop={crop}: from 1 to 178, the width of the images")
    source = open_source("celeb_a", dir, split)

    def decode(indices: list[int]) -> Iterator[tuple[np.ndarray, int]]:
        for example in _read(source, indices):
            image = images.decode(io.BytesIO(example["image"]), channels)
            yield images.resize(images.centre_crop(image, crop), image_size), 0

    shape = (image_size, image_size, channels)
    return DecodedDataset("celeb_a", decode, len(source), shape, 0, cache_bytes)


def labelled(name: str, dir: str | None, split: str, hint: str = "") -> Dataset:
    """A TFDS data set of images of one size with a class label each.

    Raises UserError where there is none; `hint` goes before the command that it tells.
    """
    source = open_source(name, dir, split, hint)
    features = source.dataset_info.features

    def decode(indices: list[int]) -> Iterator[tuple[np.ndarray, int]]:
        for example in _read(source, indices):
            image = images.decode(io.BytesIO(example["image"]), features["image"].shape[-1])
            yield image, int(example["label"])

    num_classes = features["label"].num_classes
    return DecodedDataset(name, decode, len(source), features["image"].shape, num_classes)


def open_source(name: str, dir: str | None, split: str, hint: str = "") -> Any:
    """TFDS's random access to a split, with its images left encoded.

    Raises UserError where the data or the split is missing, a file of it is damaged, or is in a
    format that only TensorFlow reads.
    """
    import tensorflow_datasets as tfds  # a second to import, and of no use to the other data sets

    data_dir = tfds_dir(dir)
    versions = [path.parent for path in data_dir.glob(f"{name}/*/dataset_info.json")]
    versions = [path for path in versions if tfds.core.Version.is_valid(path.name)]
    if not versions:
        raise UserError(
            f"{name}: no data in {data_dir}; {hint}download its archives into a directory "
            f"ARCHIVES and run {_prepare(name, data_dir)}"
        )
    builder = tfds.builder_from_directory(max(versions, key=lambda p: tfds.core.Version(p.name)))
    if split.partition("[")[0] not in builder.info.splits:
        raise UserError(f"--config.data.split={split}: {name} has {', '.join(builder.info.splits)}")
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{builder.data_dir}: only TensorFlow reads {builder.info.file_format.value} files; "
            f"remove the directory and run {_prepare(name, data_dir)}"
        )
    _check_shards(builder.info, split.partition("[")[0])
    decoders = {"image": tfds.decode.SkipDecoding()}
    return builder.as_data_source(split=split, decoders=decoders)


def _check_shards(info: Any, split: str) -> None:
    """Raise UserError for a file of a split that is missing, cut short, or not the one that was written."""
    from array_record.python.array_record_module import ArrayRecordReader

    written = info.splits[split]
    for path, length in zip(written.filepaths, written.shard_lengths, strict=True):
        found = ArrayRecordReader(os.fspath(path)).num_records()  # 0 of a file that is missing or cut short
        if found != length:
            raise _damaged(info, f"{path} holds {found:,} of {length:,} examples")


def _read(source: Any, indices: list[int]) -> list[dict[str, Any]]:
    """Examples of a source, images left encoded; UserError where their bytes are not those that were written."""
    try:
        return source.__getitems__(indices)
    except Exception as error:  # array_record and protobuf raise each their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise _damaged(source.dataset_info, reason) from error


def _damaged(info: Any, reason: str) -> UserError:
    directory = Path(info.data_dir)
    again = _prepare(info.name, directory.parent.parent)
    return UserError(f"{info.name}: damaged data ({reason}); remove {directory} and run {again}")


def _prepare(name: str, data_dir: Path) -> str:
    """The command that prepares a data set."""
    return f"`python -m score_sde_jax.data.prepare --dataset={name} --archives=ARCHIVES --data_dir={data_dir}`"


def tfds_dir(dir: str | None) -> Path:
    """The directory of TFDS data: the given one, $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    usual = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return Path(dir or usual).expanduser()
