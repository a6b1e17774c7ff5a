"""Nearest training images of samples, to detect memorization."""

import io
from collections.abc import Iterator

import numpy as np

from score_sde_jax.data import Dataset, Pixels
from score_sde_jax.devices.processes import is_first
from score_sde_jax.errors import UserError
from score_sde_jax.runs import pictures
from score_sde_jax.runs.numbered import SHOWN, SampleSet
from score_sde_jax.runs.records import write_atomically
from score_sde_jax.runs.reporting import Say
from score_sde_jax.tasks.neighbors import nearest_neighbors

BLOCK = 1000
"""Number of training images, and number of samples, that are compared at once."""


def check_number(num: int, dataset: Dataset) -> None:
    """Raise UserError for more neighbors than there are training images, or none."""
    if not 1 <= num <= len(dataset):
        raise UserError(f"--neighbors={num}: must be >= 1 and <= {len(dataset):,}, the number of training images")


def save_neighbors(samples: SampleSet, dataset: Dataset, pixels: Pixels, num: int, say: Say) -> None:
    """Save neighbors.png, the first samples with their nearest training images, and neighbors.npz.

    The archive has the `indices` of the nearest images in the dataset and their Euclidean `distances`, for pixels from
    0 to 1.

    Args:
        samples: set of images, of which one shard at a time is in memory.
        dataset: training images.
        pixels: map of their values.
        num: training images per sample.
        say: takes the log lines.
    """
    if not is_first():
        return

    def references() -> Iterator[np.ndarray]:
        for first in range(0, len(dataset), BLOCK):
            indices = np.arange(first, min(first + BLOCK, len(dataset)))
            yield pixels.gray(dataset.gather(indices)[0]).reshape(len(indices), -1) / 255

    neighbors = []
    for stored in (block[samples.key] for block in samples.blocks()):
        for first in range(0, len(stored), BLOCK):
            queries = stored[first : first + BLOCK]
            neighbors.append(nearest_neighbors(queries.reshape(len(queries), -1) / 255, references(), num))
    indices, distances = (np.concatenate(parts) for parts in zip(*neighbors, strict=True))
    packed = io.BytesIO()
    np.savez_compressed(packed, indices=indices, distances=distances)
    write_atomically(samples.directory / "neighbors.npz", packed.getvalue())
    shown = samples.head(SHOWN)[samples.key]
    nearest = pixels.gray(dataset.gather(indices[:SHOWN].ravel())[0]).reshape(-1, num, *shown.shape[1:])
    strips = pictures.strips(np.concatenate([shown[:, None], nearest], axis=1))
    pictures.save_png(samples.directory / "neighbors.png", strips)
    say(
        f"{samples.directory}: neighbors.png, neighbors.npz; median distance to the nearest of {len(dataset):,} "
        f"training images {np.median(distances[:, 0]):.3g}, smallest {distances[:, 0].min():.3g}"
    )
