"""Rows numbered from 0 in files, which a later call continues: measurements, and sets of samples in shards."""

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

from score_sde_jax.data.npz import shards
from score_sde_jax.devices.processes import is_first
from score_sde_jax.errors import UserError
from score_sde_jax.runs import pictures
from score_sde_jax.runs.reporting import Progress, Say, is_local, write_atomically

SHOWN = 64
"""Images of a set that are shown in its pictures."""
RECORD = "samples.json"
NFE = "network_evaluations_per_image"


def batches(rows: "Rows | SampleSet", total: int, batch_size: int, say: Say, what: str) -> Iterator[tuple[int, int]]:
    """Yield first number and length of each missing batch up to `total`, which the caller appends; log the progress."""
    progress = Progress(len(rows), total)
    while len(rows) < total:
        yield len(rows), min(batch_size, total - len(rows))
        speed, left = progress.report(len(rows))
        say(f"{what} {len(rows):,}/{total:,}: images_per_second={speed:.3g} time_left={left}")


class Rows:
    """Columns of numbers in a file of one JSON object a line for every batch.

    A last line that a kill cut short is dropped. Real numbers keep all digits of float32; one that is not finite is
    None.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lines, self.columns = path, list[str](), dict[str, list]()
        text = path.read_text() if path.exists() else ""
        for line in text.splitlines():
            try:
                self._take(json.loads(line))
            except json.JSONDecodeError:
                break
            self._lines.append(line + "\n")
        if is_first() and text != "".join(self._lines):
            write_atomically(path, "".join(self._lines))

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        """Add the next rows and write them."""
        row = {key: jax.tree.map(_plain, values.tolist()) for key, values in columns.items()}
        self._take(row)
        self._lines.append(json.dumps(row) + "\n")
        if not is_first():
            return
        if is_local(self.path):
            with self.path.open("a") as file:
                file.write(self._lines[-1])
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
    neither memory nor the time of a save grows with the set. `description` is what the images depend on; a directory
    that holds images of another is refused.
    """

    def __init__(self, directory: Path, description: dict[str, Any], are_images: bool) -> None:
        self.directory, self.description = directory, description
        self.key = "images" if are_images else "points"
        self._pending: list[dict[str, np.ndarray]] = []
        self.record: dict[str, Any] = {}
        path = directory / RECORD
        if path.exists():
            self.record = json.loads(path.read_text())
            if self.record["description"] != json.loads(json.dumps(description)):
                raise UserError(
                    f"{directory} holds samples of another seed, sampler or checkpoint; choose another --output"
                )
        self._saved = sum(_length(path, self.key) for path in self.shards()) if self.record else 0

    def __len__(self) -> int:
        return self._saved + sum(len(rows[self.key]) for rows in self._pending)

    def shards(self) -> list[Path]:
        """Files of the set in the order of their images."""
        return shards(self.directory, self.key)

    def append(self, samples: Num[np.ndarray, "num ..."], extras: Mapping[str, np.ndarray]) -> None:
        """Add the next samples, and further arrays with a row for each of them."""
        self._pending.append({self.key: samples, **extras})

    def save(self, metadata: Mapping[str, Any]) -> None:
        """Write the new samples as a shard, then the record with the description, `num_images` and `metadata`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._pending:
            first = self._saved
            path = self.directory / (f"{self.key}-{first:09d}.npz" if first else f"{self.key}.npz")
            packed, arrays = io.BytesIO(), _joined(self._pending)
            np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
            write_atomically(path, packed.getvalue())
            self._saved, self._pending = len(self), []
        self.record |= {"description": self.description, "num_images": len(self), **metadata}
        write_atomically(self.directory / RECORD, json.dumps(self.record, indent=2) + "\n")

    def forget(self) -> None:
        """Count the new samples and drop them, in a process that writes nothing."""
        self._saved, self._pending = len(self), []

    def blocks(self) -> Iterator[dict[str, np.ndarray]]:
        """All arrays of the set, shard by shard."""
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
        return {name: rows[:num] for name, rows in _joined(taken).items()}

    def column(self, name: str) -> np.ndarray:
        """One array of all samples."""
        return np.concatenate([block[name] for block in self.blocks()])

    def save_files(self) -> None:
        """Write every image that has no file yet as images/<number>.png."""
        folder, number = self.directory / "images", 0
        folder.mkdir(exist_ok=True)
        for block in self.blocks():
            for image in block[self.key]:
                path = folder / f"{number:06d}.png"
                if not path.exists():
                    pictures.save_png(path, Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image))
                number += 1


def _joined(blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([block[name] for block in blocks]) for name in (blocks[0] if blocks else ())}


def _length(path: Path, key: str) -> int:
    """Rows of an array in an npz file, from its header alone."""
    with path.open("rb") as opened, zipfile.ZipFile(opened) as archive, archive.open(f"{key}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(file)[0][0]
