"""A folder or zip file of images of any size."""

import collections
import concurrent.futures
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from score_sde_jax.data import finding, images
from score_sde_jax.data.dataset import CACHE_BYTES, Channels, Dataset, DecodedDataset, Size, height_width, with_spec
from score_sde_jax.data.finding import LABELS, Files
from score_sde_jax.errors import UserError
from score_sde_jax.ranges import Bytes, Positive, Share

SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}
"""Names of folders that are splits of a dataset, and no classes."""
NUMBERED = re.compile(r"(.*?[^\W\d_]|.+?(?=[ ._-]))[ ._-]*(?:\d+|\(\d+\))")
"""Class and number in the name of a file, such as cat_0001, cat-1, cat1 or "cat (1)"."""
CHECKED_AT_ONCE = 16
"""Threads that read the beginnings of files."""
LOOKED_AT = 16
"""Images whose mean brightness is looked at."""
DARK, BRIGHT = 6, 251
"""Mean gray values beyond which a dataset is nearly black or white."""
DIM, DIM_DEEP = 32, 128
"""Gray values that a dataset reaches unless it is nearly black: of 8 bits, and of more, which may use fewer of them."""


@with_spec(channels=3)
def image_folder(
    *,
    dir: str | None = None,
    image_size: Size,
    channels: Channels = 3,
    labels: bool | Literal["file_names"] = False,
    max_value: Positive | None = None,
    max_unreadable: Share = 0.05,
    cache_bytes: Bytes = CACHE_BYTES,
) -> Dataset:
    """Open every image below a folder or in a zip file: uint8 (height, width, channels).

    Images are in the order of their sorted paths. Each is cropped to its largest central part of the shape
    `image_size`, and resized by `images.resize`. A file whose beginning or end Pillow cannot read is left out. If the
    middle of a file turns out to be damaged, the next readable image takes its index, with one warning.

    Args:
        dir: path of the folder or zip file.
        image_size: height and width of the resized images, in pixels: one number for both, or (height, width).
        channels: 3 for RGB, 1 for gray.
        labels: whether the images have classes: those of the file dataset.json of StyleGAN and EDM, or else the folders
            directly below `dir` in sorted order. One folder around the class folders is passed over. With "file_names"
            the class is the name of the file without the number at its end: cat for cat_0001.png.
        max_value: stored value that becomes white, for images of 16 bits or floating-point numbers; None means the
            value in the file's tags, or 65,535 for 16 bits and 1 for floating-point numbers.
        max_unreadable: largest share of unreadable image files.
        cache_bytes: limit of the decoded images in memory, in bytes; a larger dataset is decoded in every epoch.

    Raises:
        UserError: no readable image, too many unreadable files, or with `labels` an image without a class.
    """
    size = height_width(image_size)
    images.check_size(size, channels)
    files, num_animated = _readable(f"--config.data.dir={dir}", finding.find(dir), max_value, max_unreadable)
    classes = _classes_by_file_name if labels == "file_names" else _classes
    class_of, names = classes(files) if labels else ([0] * len(files.names), [])
    reader = _Reader(files, size, channels, max_value, max_unreadable)

    def decode(indices: list[int]) -> Iterator[tuple[np.ndarray, int]]:
        for image, position in map(reader.read, indices):
            yield image, class_of[position]

    dataset = DecodedDataset("image_folder", decode, len(files.names), (*size, channels), len(names), cache_bytes)
    numbers = np.bincount(class_of, minlength=len(names)).tolist()
    dataset.class_names = names
    dataset.about_classes = finding.counted(names, numbers) if names else ""
    dataset.left_out = files.describe_left_out()
    dataset.notes = [*([] if labels is True else _notes_on_folders(files)), *_notes(dataset, reader)]
    if num_animated:
        dataset.notes.append(f"note: {num_animated:,} files have several frames or pages, of which the first is read")
    return dataset


def _readable(given: str, files: Files, max_value: float | None, max_unreadable: float) -> tuple[Files, int]:
    """Return the files without those that cannot be read, and how many have several frames.

    Raises UserError if those that cannot be read are too many.
    """
    with concurrent.futures.ThreadPoolExecutor(CHECKED_AT_ONCE) as threads:
        results = list(threads.map(lambda name: _checked(files, name, max_value), files.names))
    problems = {name: found for name, found in zip(files.names, results, strict=True) if isinstance(found, str)}
    num, bad = len(files.names), len(problems)
    if bad == num:
        raise UserError(f"{given}: none of its {num} image files can be read ({_first(problems)})")
    if bad > max_unreadable * num:
        raise UserError(
            f"{given}: {bad} of {num} image files cannot be read ({_first(problems)}); remove them, or leave "
            f"them out with --config.data.max_unreadable={-(-100 * bad // num) / 100:g}"
        )
    for name, problem in list(problems.items())[:10]:
        logging.warning("%s: left out, not readable (%s)", files.root / name, problem)
    return files.without(dict.fromkeys(problems, "unreadable")), sum(found is True for found in results)


def _first(problems: dict[PurePosixPath, str]) -> str:
    return next(f"{name}: {problem}" for name, problem in problems.items())


def _checked(files: Files, name: PurePosixPath, max_value: float | None) -> bool | str:
    """Return whether a file has several frames, or why it cannot be read."""
    try:
        return images.check(files.open(name), max_value)
    except Exception as error:  # Pillow raises many types for corrupted files
        return str(error) or type(error).__name__


def _classes(files: Files) -> tuple[list[int], list[str]]:
    """Return the class of each image, and the names of the classes."""
    if (numbers := _labels_of_json(files)) is not None:
        return numbers, [str(number) for number in range(max(numbers) + 1)]
    given = f"--config.data.labels=True: {files.root}"
    around, parts = _without_wrapper(files)
    loose = [name for name, part in zip(files.names, parts, strict=True) if len(part) == 1]
    if loose:
        raise UserError(
            f"--config.data.labels=True: {files.root / loose[0]} is in no class folder; move the images of each class "
            "into a folder of its own, or give --config.data.labels=file_names for classes in names such as "
            "cat_0001.png"
        )
    names = sorted({part[0] for part in parts})
    if {name.lower() for name in names} <= SPLITS:
        raise UserError(
            f"{given} has the folders {' and '.join(names)}, which are splits; {_one_of(files, around, names)}"
        )
    if len(names) == 1:
        raise UserError(f"{given} has one class folder, {names[0]}; at least two classes are needed")
    return _numbered([part[0] for part in parts])


def _classes_by_file_name(files: Files) -> tuple[list[int], list[str]]:
    """Return the class of each image by the name of its file, and the names of the classes."""
    given, found = "--config.data.labels=file_names", [NUMBERED.fullmatch(name.stem) for name in files.names]
    for name, match in zip(files.names, found, strict=True):
        if not match:
            raise UserError(
                f"{given}: {files.root / name} is not a name with a number at its end, such as cat_0001.png"
            )
    numbers, names = _numbered([match[1] for match in found if match])
    if len(names) == 1:
        raise UserError(f"{given}: {files.root} has one class, {names[0]}; at least two classes are needed")
    return numbers, names


def _numbered(class_names: list[str]) -> tuple[list[int], list[str]]:
    """Return the class of each image as a number, and the names of the classes in sorted order."""
    names = sorted(set(class_names))
    number = {name: i for i, name in enumerate(names)}
    return [number[name] for name in class_names], names


def _without_wrapper(files: Files) -> tuple[PurePosixPath, list[tuple[str, ...]]]:
    """Return the folder around all folders, as archives have it, and the parts of the names below it."""
    parts, depth = [name.parts for name in files.names], 0
    while len({part[depth] for part in parts}) == 1 and all(len(part) > depth + 2 for part in parts):
        depth += 1
    return PurePosixPath(*parts[0][:depth]), [part[depth:] for part in parts]


def _notes_on_folders(files: Files) -> list[str]:
    """Return notes on folders that are in one set, but may be splits, or pairs such as images and their masks."""
    around, parts = _without_wrapper(files)
    names = dict[str, set[tuple[str, ...]]]()  # of the files in each folder, without suffix
    for path, (first, *rest) in zip(files.names, parts, strict=True):
        if rest:
            names.setdefault(first, set()).add((*rest[:-1], path.stem))
    splits = [folder for folder in names if folder.lower() in SPLITS]
    if len(splits) > 1:
        return [f"note: the splits {_listed(splits)} are in one set; {_one_of(files, around, splits)}"]
    number = collections.Counter(map(frozenset, names.values()))
    pairs = [folder for folder, own in names.items() if number[frozenset(own)] > 1]
    if not pairs:
        return []
    return [
        f"note: the folders {_listed(pairs)} have files of the same names, and all are in one set; "
        f"{_one_of(files, around, pairs)}"
    ]


def _listed(names: list[str], most: int = 10) -> str:
    """Return names with "and" before the last, at most the first `most`."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _one_of(files: Files, around: PurePosixPath, names: list[str]) -> str:
    """Return what a user can give to read one of several folders: of splits, the one for training."""
    name = next((name for name in names if name.lower().startswith(("train", "image", "input"))), names[0])
    unpacked = "" if files.root.is_dir() else "unpack the zip file, and "
    root = files.root if files.root.is_dir() else files.root.with_suffix("")
    return f"to read one of them, {unpacked}give --config.data.dir={root / around / name}"


def _labels_of_json(files: Files) -> list[int] | None:
    """Return the classes in the file of labels; None if there is no such file, or it has no labels."""
    where = f"{files.root / LABELS}: not the labels of StyleGAN and EDM"
    try:
        content = files.read_labels()
        labels = None if content is None else json.loads(content)["labels"]
        if labels is None:
            return None
        by_name = {PurePosixPath(name): label for name, label in dict(labels).items()}
    except UserError:
        raise
    except Exception as error:  # of the file system, of zipfile and zlib, and of what the file contains
        raise UserError(f'{where} ({{"labels": [[name, class], ...]}})') from error
    numbers = [by_name.get(name) for name in files.names]
    for name, number in zip(files.names, numbers, strict=True):
        if type(number) is not int or not 0 <= number < 2**16:
            raise UserError(f"{where}: the class of {name} is {number}, must be an integer >= 0")
    return numbers  # type: ignore[return-value]


def _notes(dataset: Dataset, reader: "_Reader") -> list[str]:
    """Return a note on images that are nearly black or white, such as those of 12 of 16 bits."""
    looked_at = np.unique(np.linspace(0, len(dataset) - 1, LOOKED_AT).astype(int)).tolist()
    values = [reader.read(index)[0] for index in looked_at]
    mean, brightest = float(np.mean([image.mean() for image in values])), max(int(image.max()) for image in values)
    largest = max((reader.largest(index) or 0 for index in looked_at), default=0)
    if brightest >= (DIM_DEEP if largest else DIM) and DARK <= mean <= BRIGHT:
        return []
    note = f"note: the images are nearly {'white' if mean > BRIGHT else 'black'}, with a mean of {mean:.3g} of 255"
    if not largest:
        return [note]
    return [f"{note}; the largest stored value is {largest:,g}; --config.data.max_value={largest:g} makes it white"]


class _Reader:
    """Decodes image files; the next readable file stands in for one whose damage shows only now."""

    def __init__(
        self,
        files: Files,
        size: tuple[int, int],
        channels: int,
        max_value: float | None,
        max_unreadable: float,
    ) -> None:
        self._files = files
        self._size = size
        self._channels = channels
        self._max_value = max_value
        self._most = max_unreadable * len(files.names)
        self._unreadable: set[int] = set()

    def read(self, index: int) -> tuple[images.Uint8Image, int]:
        """Return image and position of the first readable file at or after `index`; the first follows the last."""
        num = len(self._files.names)
        for position in (np.arange(index, index + num) % num).tolist():
            if position in self._unreadable:
                continue
            try:
                image = images.decode(self._open(position), self._channels, self._max_value, self._size)
            except Exception as error:  # Pillow raises many types for corrupted files
                self._report(position, error)
            else:
                return images.resize(images.crop(image, self._size), self._size), position
        raise UserError(f"{self._files.root}: none of its {num} image files can be read")

    def largest(self, index: int) -> float | None:
        """Return the largest stored value of a file of more than 8 bits; None for one of 8 bits."""
        return images.largest(self._open(index))

    def _open(self, position: int) -> Path | io.BytesIO:
        return self._files.open(self._files.names[position])

    def _report(self, position: int, error: Exception) -> None:
        if position in self._unreadable:  # another thread has reported it in the meantime
            return
        self._unreadable.add(position)
        name = self._files.root / self._files.names[position]
        logging.warning("%s: replaced by the next image, not readable (%s)", name, error)
        if len(self._unreadable) > max(self._most, 1):
            raise UserError(
                f"{self._files.root}: {len(self._unreadable)} of {len(self._files.names)} image files cannot be read, "
                f"the last of them {name} ({error}); remove them, or allow a larger --config.data.max_unreadable"
            )
