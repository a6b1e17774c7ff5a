"""The input pipeline: shuffled, repeated, shared out to the processes, as stored; `pixels` scales on the device.

Example number k of the stream (k = step * batch_size + row) is a function of (dataset, seed, k) alone: entry k mod N of
the permutation of epoch k // N. So the global batch of a step is the same for any number of processes, and a run
resumes from its step number and nothing else.
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
    """One process's rows of a global batch, as stored: uint8 images or float32 points."""

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
    """Endless batches, reshuffled every epoch, prepared in background threads.

    `batch_size` is that of all processes together; process p gets rows p B/P .. (p + 1) B/P - 1 of it. The first batch
    is number `start_step`. Raises UserError for a batch that the processes cannot share.
    """
    if batch_size < 1 or batch_size % process_count:
        raise UserError(f"--config.train.batch_size={batch_size}: {process_count} processes cannot share it equally")
    rows = batch_size // process_count
    epoch_order = _epoch_orders(len(dataset), seed)

    def local_batch(step: int) -> Batch:
        first = step * batch_size + process_index * rows
        images, labels = dataset.gather(_indices(epoch_order, len(dataset), first, rows))
        return {"image": images, "label": labels}

    steps = grain.MapDataset.range(start_step, sys.maxsize).map(local_batch)
    return iter(steps.to_iter_dataset(READ_OPTIONS))


def all_images(dataset: Dataset) -> Num[np.ndarray, "num ..."]:
    """Every image in order as stored: uint8 of `dataset.levels` levels, or float32 points."""
    return dataset.gather(np.arange(len(dataset)))[0]


def _epoch_orders(length: int, seed: int):
    """Function from the number of an epoch to its permutation of the examples."""

    @functools.lru_cache(maxsize=2)  # a batch may reach into the next epoch
    def order(epoch: int) -> Int[np.ndarray, "length"]:
        return _generator(seed, ORDER, epoch << 64).permutation(length)

    return order


def _indices(epoch_order, length: int, first: int, rows: int) -> Int[np.ndarray, "rows"]:
    """Examples at positions first .. first + rows - 1 of the shuffled and repeated stream."""
    epochs, offsets = np.divmod(np.arange(first, first + rows), length)
    parts = [epoch_order(int(epoch))[offsets[epochs == epoch]] for epoch in np.unique(epochs)]
    return np.concatenate(parts)


def _generator(seed: int, stream: int, counter: int) -> np.random.Generator:
    key = np.array([seed, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
