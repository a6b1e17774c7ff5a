"""What a data set is: examples by index, held in memory or decoded once and then remembered."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Int, Int32, Integer, Num

from score_sde_jax.errors import UserError

CACHE_BYTES = 2 << 30
"""Decoded images are kept in memory up to this many bytes (CelebA at 64 pixels takes 1.9 GiB)."""

DECODED_AT_ONCE = 128  # TFDS reads records in groups three times as fast as one by one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declared:
    """What is known of a dataset before any of its files is read; None where only the files tell.

    levels: quantization levels of a value, None for continuous values. train_images: published size of split "train".
    point_shape: shape of an example that is no image.
    """

    image_size: int | None = None
    channels: int | None = None
    levels: int | None = 256
    train_images: int | None = None
    point_shape: tuple[int, ...] | None = None

    def shape(self, image_size: int | None, channels: int | None) -> tuple[int, ...] | None:
        """Shape of an example with these options."""
        size, channels = image_size or self.image_size, channels or self.channels
        if self.point_shape or size is None or channels is None:
            return self.point_shape
        return (size, size, channels)

    def length(self, split: str | None) -> int | None:
        """Published number of images of a split."""
        return self.train_images if split == "train" else None


def declares(**known: Any) -> Callable[[Callable[..., "Dataset"]], Callable[..., "Dataset"]]:
    """Decorator of a function that opens a dataset, with what is known of it before: see `Declared`."""

    def decorated(opens: Callable[..., "Dataset"]) -> Callable[..., "Dataset"]:
        opens.declared = Declared(**known)  # type: ignore[attr-defined]
        return opens

    return decorated


class Example(TypedDict):
    """One image, uint8 of shape (height, width, channels) or a float32 point, and its label."""

    image: Num[np.ndarray, "..."]
    label: int


class Dataset:
    """Examples by index: `len(dataset)`, `dataset[i]`, and many at once by `gather`.

    `image_shape` is (height, width, channels), or (2,) for points. `levels` is the number of
    quantisation levels, values 0 .. levels - 1, or None for continuous values. `num_classes` is 0
    where nothing is labelled; every label is then 0.
    """

    def __init__(self, name: str, image_shape: tuple[int, ...], num_classes: int, levels: int | None) -> None:
        self.name = name
        self.image_shape = image_shape
        self.num_classes = num_classes
        self.levels = levels

    def __len__(self) -> int:
        raise NotImplementedError

    def gather(
        self, indices: Int[np.ndarray, "batch"]
    ) -> tuple[Num[np.ndarray, "batch ..."], Int32[np.ndarray, "batch"]]:
        """Images and labels of the given indices, in that order."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} examples, no number {index}")
        images, labels = self.gather(np.array([index]))
        return {"image": images[0], "label": int(labels[0])}


class ArrayDataset(Dataset):
    """A data set that lies in memory.

    images: uint8 (num, height, width, channels), or float32 (num, 2) for points.
    labels: (num,), or None where there are none.
    """

    def __init__(
        self,
        name: str,
        images: Num[np.ndarray, "num ..."],
        labels: Integer[np.ndarray, "num"] | None,
        levels: int | None = 256,
    ) -> None:
        num_classes = 0 if labels is None else int(labels.max()) + 1
        super().__init__(name, images.shape[1:], num_classes, levels)
        self._images = images
        self._labels = np.zeros(len(images), np.int32) if labels is None else labels.astype(np.int32)

    def __len__(self) -> int:
        return len(self._images)

    def gather(
        self, indices: Int[np.ndarray, "batch"]
    ) -> tuple[Num[np.ndarray, "batch ..."], Int32[np.ndarray, "batch"]]:
        """Images and labels of the given indices, in that order."""
        return self._images[indices], self._labels[indices]


class DecodedDataset(Dataset):
    """A data set whose images are decoded when asked for, each once if all fit in `cache_bytes`.

    `decode(indices)` yields a uint8 image of `image_shape` and a label for each index; several
    threads call it.
    """

    def __init__(
        self,
        name: str,
        decode: Callable[[list[int]], Iterable[tuple[np.ndarray, int]]],
        length: int,
        image_shape: tuple[int, ...],
        num_classes: int,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        super().__init__(name, image_shape, num_classes, levels=256)
        self._decode = decode
        self._length = length
        self._labels = np.zeros(length, np.int32)
        self._cached = np.zeros(length, bool)
        fits = length * math.prod(image_shape) <= cache_bytes
        # np.empty takes memory only as it is written to, so a short run pays only for what it saw.
        self._images = np.empty((length, *image_shape), np.uint8) if fits else None

    def __len__(self) -> int:
        return self._length

    def gather(
        self, indices: Int[np.ndarray, "batch"]
    ) -> tuple[Num[np.ndarray, "batch ..."], Int32[np.ndarray, "batch"]]:
        """Images and labels of the given indices, in that order."""
        if self._images is None:
            images = np.empty((len(indices), *self.image_shape), np.uint8)
            labels = np.empty(len(indices), np.int32)
            for row, example in enumerate(self._decoded(indices)):
                images[row], labels[row] = example
            return images, labels
        missing = indices[~self._cached[indices]]
        for index, example in zip(missing, self._decoded(missing), strict=True):
            self._images[index], self._labels[index] = example
            self._cached[index] = True  # last: another thread may be looking
        return self._images[indices], self._labels[indices]

    def _decoded(self, indices: Int[np.ndarray, "num"]) -> Iterator[tuple[np.ndarray, int]]:
        for start in range(0, len(indices), DECODED_AT_ONCE):
            yield from self._decode(indices[start : start + DECODED_AT_ONCE].tolist())


def check_declared(dataset: Dataset, image_size: int | None, channels: int | None) -> Dataset:
    """Return the data set if its images have the size and channels that the config declares.

    None declares nothing. Raises UserError where they differ.
    """
    height, width, own_channels = dataset.image_shape
    if image_size is not None and (height, width) != (image_size, image_size):
        raise UserError(f"--config.data.image_size={image_size}: the images of {dataset.name} are {height} by {width}")
    if channels is not None and channels != own_channels:
        raise UserError(f"--config.data.channels={channels}: the images of {dataset.name} have {own_channels}")
    return dataset


def check_choice(key: str, value: str, choices: Sequence[str]) -> str:
    """Return the value if it is among the choices; otherwise raise UserError naming them."""
    if value not in choices:
        raise UserError(f"{key}={value}: choose one of {', '.join(choices)}")
    return value
