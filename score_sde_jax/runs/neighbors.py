"""Nearest training images of samples, to detect memorization."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from score_sde_jax.data import Dataset, Pixels
from score_sde_jax.devices.processes import is_first
from score_sde_jax.errors import UserError
from score_sde_jax.runs import pictures
from score_sde_jax.runs.reporting import Say, write_atomically
from score_sde_jax.tasks.neighbors import nearest_neighbors

BLOCK = 1000
"""Number of training images that are compared at once."""
SHOWN = 64
"""Number of samples whose neighbors are shown."""


def check_number(num: int, dataset: Dataset) -> None:
    """Raise UserError for more neighbors than there are training images, or none."""
    if not 1 <= num <= len(dataset):
        raise UserError(f"--neighbors={num}: must be >= 1 and <= {len(dataset):,}, the number of training images")


def leave_neighbors(
    directory: Path,
    stored: UInt8[np.ndarray, "num height width channels"],
    dataset: Dataset,
    pixels: Pixels,
    num: int,
    say: Say,
) -> None:
    """Write neighbors.png, each sample before its `num` nearest training images, and neighbors.npz: `indices` of
    these in the data set and Euclidean `distances`, with pixels from 0 to 1.
    """
    if not is_first():
        return

    def references() -> Iterator[np.ndarray]:
        for first in range(0, len(dataset), BLOCK):
            indices = np.arange(first, min(first + BLOCK, len(dataset)))
            yield pixels.gray(dataset.gather(indices)[0]).reshape(len(indices), -1) / 255

    indices, distances = nearest_neighbors(stored.reshape(len(stored), -1) / 255, references(), num)
    packed = io.BytesIO()
    np.savez_compressed(packed, indices=indices, distances=distances)
    write_atomically(directory / "neighbors.npz", packed.getvalue())
    nearest = pixels.gray(dataset.gather(indices[:SHOWN].ravel())[0])
    nearest = nearest.reshape(-1, num, *stored.shape[1:])
    shown = np.concatenate([stored[:SHOWN, None], nearest], axis=1)
    pictures.save_png(directory / "neighbors.png", pictures.strips(shown))
    say(
        f"{directory}: neighbors.png, neighbors.npz; median distance to the nearest of {len(dataset):,} training "
        f"images {np.median(distances[:, 0]):.3g}, smallest {distances[:, 0].min():.3g}"
    )
