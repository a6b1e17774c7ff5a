"""TensorFlow Datasets (TFDS) as array_record files, read without TensorFlow.

`score_sde_jax.data.prepare` writes these files, as does TFDS with `file_format="array_record"`.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from score_sde_jax.data import images
from score_sde_jax.data.dataset import (
    CACHE_BYTES,
    Channels,
    Dataset,
    DecodedDataset,
    Size,
    check_shape,
    height_width,
    with_spec,
)
from score_sde_jax.errors import UserError
from score_sde_jax.ranges import Bytes, Range


@with_spec(image_size=32, channels=3, train_images=50_000)
def cifar10(
    dir: str | None = None,
    split: str = "train",
    image_size: Size | None = None,
    channels: Channels | None = None,
) -> Dataset:
    """Open CIFAR-10: uint8 (32, 32, 3), ten classes, splits "train" (50,000) and "test" (10,000).

    Args:
        dir: directory of TFDS data, with a folder cifar10; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.
        split: "train", "test" or a slice such as "train[:1000]".
        image_size: expected height and width in pixels: 32, or None.
        channels: expected channels: 3, or None.

    Raises:
        UserError: missing or corrupted data, unknown split, or images of another shape are expected.
    """
    return check_shape(labeled("cifar10", dir, split), image_size, channels)


@with_spec(image_size=64, channels=3, train_images=162_770)
def celeb_a(
    dir: str | None = None,
    split: str = "train",
    image_size: Size = 64,
    crop: Annotated[int, Range(1, 179)] = 140,
    channels: Channels = 3,
    cache_bytes: Bytes = CACHE_BYTES,
) -> Dataset:
    """Open CelebA: faces, uint8 (image_size, image_size, channels), without labels.

    The aligned images have 178 x 218 pixels. NCSNv2 and score-SDE crop to 140 and resize to 64 pixels, NCSN to 32.
    Splits: "train" (162,770), "validation" (19,867) and "test" (19,962).

    Args:
        dir: directory of TFDS data, with a folder celeb_a; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.
        split: "train", "validation", "test" or a slice such as "train[:1000]".
        image_size: height and width of the resized images, in pixels: one number for both, or (height, width).
        crop: height and width of the central square that is resized, in pixels, 1 to 178.
        channels: 3 for RGB, 1 for gray.
        cache_bytes: limit of the decoded images in memory, in bytes; a larger dataset is decoded in every epoch.

    Raises:
        UserError: missing or corrupted data, unknown split, or an option out of range.
    """
    size = height_width(image_size)
    images.check_size(size, channels)
    if not 1 <= crop <= 178:
        raise UserError(f"--config.data.crop={crop}: must be >= 1 and <= 178, the width of the images")
    source = open_source("celeb_a", dir, split)

    def decode(indices: list[int]) -> Iterator[tuple[np.ndarray, int]]:
        for example in _read(source, indices):
            image = images.decode(io.BytesIO(example["image"]), channels)
            yield images.resize(images.crop(images.center_crop(image, crop), size), size), 0

    shape = (*size, channels)
    return DecodedDataset("celeb_a", decode, len(source), shape, 0, cache_bytes)


def labeled(name: str, dir: str | None, split: str, hint: str = "") -> Dataset:
    """Open a TFDS dataset of labeled images of one size.

    Args:
        name: name of the dataset in TFDS.
        dir: directory of TFDS data; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.
        split: split or slice of a split.
        hint: another source of the data, for the message if it is missing.

    Raises:
        UserError: missing or corrupted data, or unknown split.
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
    """Open the TFDS data source of a split: random access to its examples, with encoded images.

    Args:
        name: name of the dataset in TFDS.
        dir: directory of TFDS data; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.
        split: split or slice of a split.
        hint: another source of the data, for the message if it is missing.

    Raises:
        UserError: missing or corrupted data, unknown split, or a file format that only TensorFlow reads.
    """
    import tensorflow_datasets as tfds  # imported here, since other datasets do not need it

    data_dir = tfds_dir(dir)
    versions = [path.parent for path in data_dir.glob(f"{name}/*/dataset_info.json")]
    versions = [path for path in versions if tfds.core.Version.is_valid(path.name)]
    if not versions:
        raise UserError(
            f"--config.data.name={name}: no data in {data_dir}; {hint}download its archives to a directory "
            f"ARCHIVES and run {_prepare_command(name, data_dir)}"
        )
    builder = tfds.builder_from_directory(max(versions, key=lambda p: tfds.core.Version(p.name)))
    if split.partition("[")[0] not in builder.info.splits:
        raise UserError(f"--config.data.split={split}: choose one of {', '.join(builder.info.splits)}, or a slice")
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{builder.data_dir}: only TensorFlow reads {builder.info.file_format.value} files; "
            f"remove the directory and run {_prepare_command(name, data_dir)}"
        )
    _check_shards(builder.info, split.partition("[")[0])
    decoders = {"image": tfds.decode.SkipDecoding()}
    return builder.as_data_source(split=split, decoders=decoders)


def _check_shards(info: Any, split: str) -> None:
    """Raise UserError if a file of a split is missing, truncated, or has another number of examples."""
    from array_record.python.array_record_module import ArrayRecordReader

    split_info = info.splits[split]
    for path, length in zip(split_info.filepaths, split_info.shard_lengths, strict=True):
        num_records = ArrayRecordReader(os.fspath(path)).num_records()  # 0 for a missing or truncated file
        if num_records != length:
            raise _corrupted(info, f"{path} has {num_records:,} of {length:,} examples")


def _read(source: Any, indices: list[int]) -> list[dict[str, Any]]:
    """Read examples with encoded images; UserError if their records are corrupted."""
    try:
        return source.__getitems__(indices)
    except Exception as error:  # array_record and protobuf raise different types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise _corrupted(source.dataset_info, reason) from error


def _corrupted(info: Any, reason: str) -> UserError:
    directory = Path(info.data_dir)
    command = _prepare_command(info.name, directory.parent.parent)
    return UserError(f"{info.name}: corrupted data ({reason}); remove {directory} and run {command}")


def _prepare_command(name: str, data_dir: Path) -> str:
    return f"`python -m score_sde_jax.data.prepare --dataset={name} --archives=ARCHIVES --data_dir={data_dir}`"


def tfds_dir(dir: str | None) -> Path:
    """Return the directory of TFDS data: `dir`, or by default $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return Path(dir or default).expanduser()
