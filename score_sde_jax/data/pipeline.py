"""The input pipeline: shuffled batches as stored, split over the processes; `Pixels` scales them on the device.

Example k of the stream (k = step * batch_size + row) is entry k mod N of the permutation of epoch k // N, for a dataset
of N examples. It depends on (dataset, seed, k) alone. So the global batch of a step is the same for any number of
processes, and a run resumes its data from the step alone.
"""

import functools
import sys
from collections.abc import Iterator
from typing import TypedDict

import grain
import numpy as np
from jaxtyping import Int, Int32, Num

from score_sde_jax.data.dataset import Dataset
from score_sde_jax.errors import UserError

ORDER = 0  # the second word of the Philox key
READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


class Batch(TypedDict):
    """The rows of a global batch that one process reads, as stored: uint8 images or float32 points."""

    image: Num[np.ndarray, "batch ..."]
    label: Int32[np.ndarray, "batch"]


def training_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Return an endless iterator of batches, reshuffled every epoch and read in background threads.

    Args:
        dataset: dataset of at least one example.
        batch_size: examples in a global batch B, a positive multiple of `process_count`.
        seed: seed of the permutations.
        start_step: step of the first batch, from 0.
        process_index: index p of this process, which gets rows p B/P to (p + 1) B/P - 1 of a batch.
        process_count: number of processes P.

    Raises:
        UserError: `batch_size` is not a positive multiple of `process_count`.
    """
    if batch_size < 1 or batch_size % process_count:
        needs = f"a positive multiple of {process_count}, the number of processes" if batch_size > 0 else ">= 1"
        raise UserError(f"--config.train.batch_size={batch_size}: must be {needs}")
    rows = batch_size // process_count
    epoch_order = _epoch_orders(len(dataset), seed)

    def local_batch(step: int) -> Batch:
        first = step * batch_size + process_index * rows
        images, labels = dataset.gather(_indices(epoch_order, len(dataset), first, rows))
        return {"image": images, "label": labels}

    steps = grain.MapDataset.range(start_step, sys.maxsize).map(local_batch)
    return iter(steps.to_iter_dataset(READ_OPTIONS))


def all_images(dataset: Dataset) -> Num[np.ndarray, "num ..."]:
    """Return every image in order, as stored: uint8 with values 0 to `dataset.levels` - 1, or float32 points."""
    return dataset.gather(np.arange(len(dataset)))[0]


def _epoch_orders(length: int, seed: int):
    """Return the function from an epoch, from 0, to its permutation of the examples."""

    @functools.lru_cache(maxsize=2)  # a batch may contain the end of one epoch and the start of the next
    def order(epoch: int) -> Int[np.ndarray, "length"]:
        return _generator(seed, ORDER, epoch << 64).permutation(length)

    return order


def _indices(epoch_order, length: int, first: int, rows: int) -> Int[np.ndarray, "rows"]:
    """Return the examples at positions first to first + rows - 1 of the shuffled and repeated stream."""
    epochs, offsets = np.divmod(np.arange(first, first + rows), length)
    parts = [epoch_order(int(epoch))[offsets[epochs == epoch]] for epoch in np.unique(epochs)]
    return np.concatenate(parts)


def _generator(seed: int, stream: int, counter: int) -> np.random.Generator:
    key = np.array([seed, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
