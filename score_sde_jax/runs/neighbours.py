"""The training images that samples are nearest to: whether a model draws or repeats."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from score_sde_jax.data import Dataset, examples
from score_sde_jax.devices.processes import is_first
from score_sde_jax.errors import UserError
from score_sde_jax.runs import pictures
from score_sde_jax.runs.reporting import Say, write_atomically
from score_sde_jax.tasks.neighbours import nearest_neighbours

BLOCK = 1000
"""Training images that are compared at once."""
SHOWN = 64
"""Images whose neighbours are shown."""


def check_number(num: int, dataset: Dataset) -> None:
    """Raise UserError for more neighbours than there are training images, or none."""
    if not 1 <= num <= len(dataset):
        raise UserError(f"--neighbours={num}: from 1 to the {len(dataset):,} training images")


def leave_neighbours(
    directory: Path,
    stored: UInt8[np.ndarray, "num height width channels"],
    dataset: Dataset,
    value_range: tuple[float, float],
    num: int,
    say: Say,
) -> None:
    """Write neighbours.png, each sample before its `num` nearest training images, and neighbours.npz: `indices` of
    these in the data set and Euclidean `distances`, with pixels from 0 to 1.
    """
    if not is_first():
        return

    def references() -> Iterator[np.ndarray]:
        for first in range(0, len(dataset), BLOCK):
            indices = np.arange(first, min(first + BLOCK, len(dataset)))
            yield _looked_at(dataset, indices, value_range).reshape(len(indices), -1) / 255

    indices, distances = nearest_neighbours(stored.reshape(len(stored), -1) / 255, references(), num)
    packed = io.BytesIO()
    np.savez_compressed(packed, indices=indices, distances=distances)
    write_atomically(directory / "neighbours.npz", packed.getvalue())
    found = _looked_at(dataset, indices[:SHOWN].ravel(), value_range)
    found = found.reshape(-1, num, *stored.shape[1:])
    shown = np.concatenate([stored[:SHOWN, None], found], axis=1)
    pictures.save_png(directory / "neighbours.png", pictures.strips(shown))
    say(
        f"{directory}: neighbours.png, neighbours.npz; median distance to the nearest of {len(dataset):,} training "
        f"images {np.median(distances[:, 0]):.3g}, smallest {distances[:, 0].min():.3g}"
    )


def _looked_at(dataset: Dataset, indices: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Images of a data set as samples are stored."""
    return pictures.to_uint8(examples(dataset, indices, value_range), value_range)
