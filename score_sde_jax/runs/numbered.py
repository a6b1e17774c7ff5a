"""Numbered rows in files, which a later call continues: measurements, and sets of samples in shards."""

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Num
from PIL import Image

from score_sde_jax.data.npz import read_header, shards
from score_sde_jax.devices.processes import is_first
from score_sde_jax.errors import UserError
from score_sde_jax.runs import pictures
from score_sde_jax.runs.records import append, is_local, quarantine, read_object, write_atomically
from score_sde_jax.runs.reporting import Progress, Say

SHOWN = 64
"""Images of a set that are shown in its pictures."""
RECORD = "samples.json"
NFE = "network_evaluations_per_image"
PARAMETERS = "parameters"
"""Key of a description with the fingerprint of the network's parameters."""


def batches(rows: "Rows | SampleSet", total: int, batch_size: int, say: Say, what: str) -> Iterator[tuple[int, int]]:
    """Yield first number and length of each missing batch, which the caller appends; log the progress."""
    progress = Progress(len(rows), max(total, len(rows)))
    while (gap := rows.gap(total)) is not None:
        first, stop = gap
        yield first, min(batch_size, stop - first)
        speed, left = progress.report(len(rows))
        say(f"{what} {len(rows):,}/{total:,}: images_per_second={speed:.3g} time_left={left}")


class DamagedSetError(UserError):
    """A set of samples with a corrupted file.

    Args:
        path: the file. If it is the record, all shards are corrupted, since they have no other description.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


class Rows:
    """Columns of numbers in a file with one JSON object per batch, one a line.

    Rows from the first unreadable line on are measured again. Real numbers keep all digits of float32; a number that is
    not finite is None.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lines, self.columns = path, list[str](), dict[str, list]()
        content = path.read_bytes() if path.exists() else b""
        for line in content.split(b"\n"):
            try:
                row = json.loads(line)
                if {type(values) for values in row.values()} != {list} or len(set(map(len, row.values()))) != 1:
                    break
                if self.columns and row.keys() != self.columns.keys():
                    break
            except (ValueError, AttributeError, RecursionError):
                break
            self._take(row)
            self._lines.append(line.decode() + "\n")
        text = "".join(self._lines)
        if is_first() and content != text.encode():
            if content.count(b"\n") > len(self._lines):  # more lines follow; a kill cuts only the last one short
                quarantine(path, f"line {len(self._lines) + 1} cannot be read; the rows from it on are measured again")
            write_atomically(path, text)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def gap(self, total: int) -> tuple[int, int] | None:
        """Return the interval of the missing rows up to `total`; None if there are none."""
        return (len(self), total) if len(self) < total else None

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        """Add the next rows and write them."""
        row = {key: jax.tree.map(_plain, values.tolist()) for key, values in columns.items()}
        self._take(row)
        self._lines.append(json.dumps(row) + "\n")
        if not is_first():
            return
        if is_local(self.path):
            append(self.path, self._lines[-1])
        else:
            self.path.write_text("".join(self._lines))

    def _take(self, row: dict[str, list]) -> None:
        for key, values in row.items():
            self.columns.setdefault(key, []).extend(values)


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.9g}") if math.isfinite(value) else None


class SampleSet:
    """The samples of one seed and one sampler in a directory, in shards: images.npz, images-000000100.npz, ...

    The number in the name of a shard is that of its first image; images.npz begins with 0. A shard is written once, so
    neither memory nor the time of a save grows with the set. Images of a missing shard are generated again.

    Args:
        directory: directory of the set.
        description: settings and values that the images depend on.
        shape: shape of an image or point.

    Raises:
        DamagedSetError: a file of the set cannot be read.
        UserError: the directory holds samples of another description.
    """

    def __init__(self, directory: Path, description: dict[str, Any], shape: tuple[int, ...]) -> None:
        self.directory, self.description = directory, description
        self.key = "images" if len(shape) == 3 else "points"
        self._pending: list[dict[str, np.ndarray]] = []
        self._first_pending = 0
        self.record: dict[str, Any] = read_record(directory) or {}
        if self.record and not agrees(self.record["description"], description):
            raise UserError(
                f"{directory} holds samples of another seed, sampler or checkpoint; choose another --output"
            )
        if not self.record and self.shards():
            raise DamagedSetError(directory / RECORD, "is missing, but there are samples")
        self._saved: list[tuple[int, int]] = []
        for path in self.shards():
            first, length = _first(path), _length(path, self.key, shape)
            if first < self._end(self._saved):
                raise DamagedSetError(path, "repeats images of the file before it")
            self._saved.append((first, length))

    @staticmethod
    def _end(ranges: list[tuple[int, int]]) -> int:
        return max((first + length for first, length in ranges), default=0)

    def _ranges(self) -> list[tuple[int, int]]:
        """Return first number and length of every shard, and of the new samples."""
        new = [(self._first_pending, self._num_pending())] if self._pending else []
        return sorted(self._saved + new)

    def _num_pending(self) -> int:
        return sum(len(rows[self.key]) for rows in self._pending)

    def __len__(self) -> int:
        return sum(length for _, length in self._ranges())

    def gaps(self, total: int) -> list[tuple[int, int]]:
        """Return the intervals of the missing images up to `total`."""
        gaps, start = [], 0
        for first, length in [*self._ranges(), (total, 0)]:
            if start < min(first, total):
                gaps.append((start, min(first, total)))
            start = max(start, first + length)
        return gaps

    def gap(self, total: int) -> tuple[int, int] | None:
        """Return the first interval of missing images up to `total`; None if there are none."""
        return next(iter(self.gaps(total)), None)

    def shards(self) -> list[Path]:
        """Return the files of the set in the order of their images."""
        return shards(self.directory, self.key)

    def append(self, samples: Num[np.ndarray, "num ..."], extras: Mapping[str, np.ndarray]) -> None:
        """Add the next missing samples, and further arrays with a row for each of them."""
        ((first, _), *_) = self.gaps(self._end(self._ranges()) + 1)
        if not self._pending:
            self._first_pending = first
        elif first != self._first_pending + self._num_pending():  # the gap is filled, and the next one begins
            self._flush()
            self._first_pending = first
        self._pending.append({self.key: samples, **extras})

    def begin(self) -> None:
        """Write the record of an empty set, so that a call with another description takes another directory."""
        if not self.record:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._write({})

    def save(self, metadata: Mapping[str, Any]) -> None:
        """Write the new samples as a shard, then the record with the description, `num_images` and `metadata`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._flush()
        self._write(metadata)

    def _flush(self) -> None:
        if not self._pending:
            return
        first = self._first_pending
        path = self.directory / (f"{self.key}-{first:09d}.npz" if first else f"{self.key}.npz")
        if is_first():
            self.directory.mkdir(parents=True, exist_ok=True)
            packed = io.BytesIO()
            np.savez_compressed(packed, **_join(self._pending))  # type: ignore[arg-type]
            write_atomically(path, packed.getvalue())
        self.forget()

    def _write(self, metadata: Mapping[str, Any]) -> None:
        self.record |= {"description": self.description, "num_images": len(self), **metadata}
        write_atomically(self.directory / RECORD, json.dumps(self.record, indent=2) + "\n")

    def forget(self) -> None:
        """Count the new samples and drop them, since they are written, or since this process writes no files."""
        self._saved, self._pending = self._ranges(), []

    def blocks(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield all arrays of the set, shard by shard."""
        for path in self.shards():
            with path.open("rb") as file, np.load(file) as archive:
                yield dict(archive)
        yield from self._pending

    def head(self, num: int = SHOWN) -> dict[str, np.ndarray]:
        """Return the first `num` rows of all arrays."""
        taken: list[dict[str, np.ndarray]] = []
        for block in self.blocks():
            taken.append(block)
            if sum(len(rows[self.key]) for rows in taken) >= num:
                break
        return {name: rows[:num] for name, rows in _join(taken).items()}

    def column(self, name: str) -> np.ndarray:
        """Return one array of all samples."""
        return np.concatenate([block[name] for block in self.blocks()])

    def save_files(self) -> None:
        """Write every image that has no file yet as images/<number>.png."""
        folder = self.directory / "images"
        folder.mkdir(exist_ok=True)
        for (first, _), block in zip(self._ranges(), self.blocks(), strict=True):
            for number, image in enumerate(block[self.key], start=first):
                path = folder / f"{number:06d}.png"
                if not path.exists():
                    pictures.save_png(path, Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image))


def _join(blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([block[name] for block in blocks]) for name in (blocks[0] if blocks else ())}


def read_record(directory: Path) -> dict[str, Any] | None:
    """Return the record of a set of samples; None if there is none; DamagedSetError if it cannot be read."""
    path = directory / RECORD
    if not path.exists():
        return None
    try:
        record = read_object(path, "the record of a set of samples")
    except UserError as error:
        raise DamagedSetError(path, str(error).removeprefix(f"{path}: ")) from error
    numbers = record.get("num_images"), record.get(NFE, 0.0)
    if not isinstance(record.get("description"), dict) or not all(isinstance(each, int | float) for each in numbers):
        raise DamagedSetError(path, "not the record of a set of samples (description or num_images is missing)")
    return record


def agrees(saved: Mapping[str, Any], description: Mapping[str, Any]) -> bool:
    """Return whether a saved description is this one; descriptions of older versions have no parameters."""
    wanted = json.loads(json.dumps(description))
    return saved == (wanted if PARAMETERS in saved else {key: wanted[key] for key in wanted if key != PARAMETERS})


def _first(path: Path) -> int:
    """Return the number of the first image of a shard."""
    return int(path.stem.partition("-")[2] or 0)


def _length(path: Path, key: str, shape: tuple[int, ...]) -> int:
    """Return the number of rows of an array in an npz file, from its header; DamagedSetError for another shape."""
    try:
        with path.open("rb") as opened, zipfile.ZipFile(opened) as archive, archive.open(f"{key}.npy") as file:
            length, *saved_shape = read_header(file)[0]
    except Exception as error:  # zipfile and numpy raise many types for corrupted files
        reason = str(error) or type(error).__name__
        raise DamagedSetError(path, f"not readable samples ({reason})") from error
    if tuple(saved_shape) != tuple(shape):
        raise DamagedSetError(path, f"samples of shape {tuple(saved_shape)}, those of the run have {tuple(shape)}")
    return length
