"""The interface of a dataset: examples by index, in memory or decoded on first use."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from jaxtyping import Int, Int32, Integer, Num

from score_sde_jax.errors import UserError
from score_sde_jax.ranges import ImageSize

CACHE_BYTES = 2 << 30
"""Default limit of the decoded images in memory, in bytes; CelebA at 64 pixels takes 1.9 GiB."""

Channels = Literal[1, 3]
"""Gray or RGB."""

Size = ImageSize | tuple[ImageSize, ImageSize]
"""Height and width of an image, in pixels: one number for both, or (height, width)."""

DECODED_AT_ONCE = 128  # TFDS reads records in groups faster than one by one


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Properties of a dataset that are known before its files are read; None for those that only the files contain.

    Attributes:
        image_size: height and width of an image, in pixels.
        channels: channels of an image.
        levels: quantization levels of a value; None for continuous values.
        train_images: published number of images of split "train".
        point_shape: shape of an example that is not an image.
    """

    image_size: int | None = None
    channels: int | None = None
    levels: int | None = 256
    train_images: int | None = None
    point_shape: tuple[int, ...] | None = None

    def shape(self, image_size: Size | None, channels: int | None) -> tuple[int, ...] | None:
        """Return the shape of an example; None if only the files contain it.

        Args:
            image_size: option `image_size` of the dataset, if it has one.
            channels: option `channels` of the dataset, if it has one.
        """
        size, channels = image_size or self.image_size, channels or self.channels
        if self.point_shape or size is None or channels is None:
            return self.point_shape
        return (*height_width(size), channels)

    def length(self, split: str | None) -> int | None:
        """Return the published number of images of a split; None if it is not known."""
        return self.train_images if split == "train" else None


def height_width(size: Size) -> tuple[int, int]:
    """Return height and width, for one number that stands for both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def with_spec(**properties: Any) -> Callable[[Callable[..., "Dataset"]], Callable[..., "Dataset"]]:
    """Return a decorator that gives a function that opens a dataset its `DatasetSpec`, as attribute `spec`.

    Args:
        **properties: attributes of the `DatasetSpec`.
    """

    def decorate(open_dataset: Callable[..., "Dataset"]) -> Callable[..., "Dataset"]:
        open_dataset.spec = DatasetSpec(**properties)  # type: ignore[attr-defined]
        return open_dataset

    return decorate


class Example(TypedDict):
    """One uint8 image (height, width, channels) or one float32 point, and its label."""

    image: Num[np.ndarray, "..."]
    label: int


class Dataset:
    """Examples by index: `len(dataset)`, `dataset[i]`, and many at once by `gather`.

    Attributes:
        name: name of the dataset, for messages.
        image_shape: (height, width, channels), or (2,) for points.
        num_classes: number of classes; 0 for a dataset without labels, in which every label is 0.
        levels: quantization levels: values are 0 to levels - 1. None for continuous values.
        class_names: names of the classes in order; empty if they have none.
        about_classes: names of the classes with their numbers of images, for messages; empty if they are not known.
        left_out: files that are not in the dataset, for messages; empty if there are none.
        notes: lines to print about unexpected properties of the images.
    """

    def __init__(self, name: str, image_shape: tuple[int, ...], num_classes: int, levels: int | None) -> None:
        self.name = name
        self.image_shape = image_shape
        self.num_classes = num_classes
        self.levels = levels
        self.class_names: list[str] = []
        self.about_classes = ""
        self.left_out = ""
        self.notes: list[str] = []

    def lines(self) -> list[str]:
        """Return the lines to print at the start of a run: the examples, the files that are left out, and notes."""
        examples = "1 example" if len(self) == 1 else f"{len(self):,} examples"
        what = f"data: {self.name}, {examples} of shape {self.image_shape}"
        if self.num_classes:
            what += f" in {self.num_classes:,} classes" + (f" ({self.about_classes})" if self.about_classes else "")
        return [what + (f"; left out: {self.left_out}" if self.left_out else ""), *self.notes]

    def __len__(self) -> int:
        raise NotImplementedError

    def gather(
        self, indices: Int[np.ndarray, "batch"]
    ) -> tuple[Num[np.ndarray, "batch ..."], Int32[np.ndarray, "batch"]]:
        """Return images and labels of the given indices, in that order."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"index must be >= 0 and < {len(self)}, the length of {self.name}, got {index}")
        images, labels = self.gather(np.array([index]))
        return {"image": images[0], "label": int(labels[0])}


class ArrayDataset(Dataset):
    """A dataset in memory.

    Args:
        name: name of the dataset, for messages.
        images: uint8 (num, height, width, channels), or float32 (num, 2) for points.
        labels: class of each image, from 0; None for a dataset without labels.
        levels: quantization levels; None for continuous values.
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
        """Return images and labels of the given indices, in that order."""
        return self._images[indices], self._labels[indices]


class DecodedDataset(Dataset):
    """A dataset of 256 levels whose images are decoded on request, each once if all fit in memory.

    Args:
        name: name of the dataset, for messages.
        decode: function that yields a uint8 image of `image_shape` and a label for each index. Several threads call it.
        length: number of examples.
        image_shape: (height, width, channels).
        num_classes: number of classes; 0 for a dataset without labels.
        cache_bytes: limit of the decoded images in memory, in bytes; a larger dataset is decoded at every request.
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
        # np.empty takes memory only when it is written to, so a short run takes only what it decodes.
        self._images = np.empty((length, *image_shape), np.uint8) if fits else None

    def __len__(self) -> int:
        return self._length

    def gather(
        self, indices: Int[np.ndarray, "batch"]
    ) -> tuple[Num[np.ndarray, "batch ..."], Int32[np.ndarray, "batch"]]:
        """Return images and labels of the given indices, in that order."""
        if self._images is None:
            images = np.empty((len(indices), *self.image_shape), np.uint8)
            labels = np.empty(len(indices), np.int32)
            for row, example in enumerate(self._decoded(indices)):
                images[row], labels[row] = example
            return images, labels
        missing = indices[~self._cached[indices]]
        for index, example in zip(missing, self._decoded(missing), strict=True):
            self._images[index], self._labels[index] = example
            self._cached[index] = True  # set last, since other threads read the image as soon as this is true
        return self._images[indices], self._labels[indices]

    def _decoded(self, indices: Int[np.ndarray, "num"]) -> Iterator[tuple[np.ndarray, int]]:
        for start in range(0, len(indices), DECODED_AT_ONCE):
            yield from self._decode(indices[start : start + DECODED_AT_ONCE].tolist())


def check_shape(dataset: Dataset, image_size: Size | None, channels: int | None) -> Dataset:
    """Return the dataset if its images have the size and channels of the config.

    Args:
        dataset: dataset of images.
        image_size: expected height and width, in pixels; None accepts any.
        channels: expected channels; None accepts any.

    Raises:
        UserError: the images have another size or other channels.
    """
    height, width, own_channels = dataset.image_shape
    if image_size is not None and (height, width) != height_width(image_size):
        raise UserError(f"--config.data.image_size={image_size}: the images of {dataset.name} are {height} by {width}")
    if channels is not None and channels != own_channels:
        plural = "" if own_channels == 1 else "s"
        raise UserError(
            f"--config.data.channels={channels}: the images of {dataset.name} have {own_channels} channel{plural}"
        )
    return dataset


def check_choice(key: str, value: str, choices: Sequence[str]) -> str:
    """Return the value if it is one of the choices.

    Args:
        key: flag that set the value, for the message.
        value: value of the flag.
        choices: allowed values.

    Raises:
        UserError: the value is none of the choices.
    """
    if value not in choices:
        raise UserError(f"{key}={value}: choose one of {', '.join(choices)}")
    return value
