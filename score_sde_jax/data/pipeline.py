"""The input pipeline: shuffled, repeated, shared out to the processes, and scaled to floats.

Example number k of the stream (k = step * batch_size + row) is a function of (data set, seed, k)
alone: its image is entry k mod N of the permutation of epoch k // N, and its flip and its
dequantisation noise come from a counter-based generator set to k. So the global batch of a step is
the same for any number of processes, and a run resumes from its step number and nothing else.
"""

import functools
import sys
from collections.abc import Iterator
from typing import TypedDict

import grain
import numpy as np
from jaxtyping import Float32, Int, Int32, Num

from score_sde_jax.data import images
from score_sde_jax.data.dataset import Dataset
from score_sde_jax.errors import UserError

ORDER, FLIP, NOISE = range(3)  # which random stream; the second word of the Philox key
FLOATS_PER_COUNT = 8  # Philox 4x64 yields 256 bits a count, a float32 takes 32
READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


class Batch(TypedDict):
    """One process's rows of a global batch."""

    image: Float32[np.ndarray, "batch ..."]
    label: Int32[np.ndarray, "batch"]


def training_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    flip: bool = False,
    dequantize: bool = False,
    value_range: tuple[float, float] | None = None,
) -> Iterator[Batch]:
    """Endless batches of float32 images, reshuffled every epoch, prepared in background threads.

    `batch_size` is that of all processes together; process p gets rows p B/P .. (p + 1) B/P - 1 of
    it. The first batch is number `start_step`. `value_range` is where the images' darkest and
    brightest values go, (0, 1) unless given; points keep their own coordinates.
    Raises UserError for a batch that the processes cannot share or an option points do not have.
    """
    if batch_size < 1 or batch_size % process_count:
        raise UserError(f"--config.train.batch_size={batch_size}: {process_count} processes cannot share it equally")
    if dataset.levels is None and flip:
        raise UserError(f"--config.data.flip=True: {dataset.name} are points, there is nothing to flip")
    images.check_scaling(dataset.levels, dequantize, value_range)
    rows = batch_size // process_count
    epoch_order = _epoch_orders(len(dataset), seed)

    def local_batch(step: int) -> Batch:
        first = step * batch_size + process_index * rows
        batch, labels = dataset.gather(_indices(epoch_order, len(dataset), first, rows))
        if flip:
            batch = images.flip(batch, _uniforms(seed, FLIP, first, (rows,)) < 0.5)
        noise = _uniforms(seed, NOISE, first, batch.shape) if dequantize else None
        return {"image": images.scale(batch, dataset.levels, value_range, noise), "label": labels}

    steps = grain.MapDataset.range(start_step, sys.maxsize).map(local_batch)
    return iter(steps.to_iter_dataset(READ_OPTIONS))


def examples(
    dataset: Dataset,
    indices: Int[np.ndarray, "batch"],
    value_range: tuple[float, float] | None = None,
) -> Float32[np.ndarray, "batch ..."]:
    """Images of the given indices as float32 in `value_range`, neither flipped nor dequantised."""
    images.check_scaling(dataset.levels, False, value_range)
    return images.scale(dataset.gather(indices)[0], dataset.levels, value_range)


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


def _uniforms(seed: int, stream: int, first: int, shape: tuple[int, ...]) -> Float32[np.ndarray, "rows ..."]:
    """Uniforms in [0, 1) of the given shape; row r depends on seed, stream and first + r alone."""
    width = int(np.prod(shape[1:]))
    counts = -(-width // FLOATS_PER_COUNT)
    generator = _generator(seed, stream, first * counts)
    drawn = generator.random((shape[0], counts * FLOATS_PER_COUNT), dtype=np.float32)
    return drawn[:, :width].reshape(shape)


def _generator(seed: int, stream: int, counter: int) -> np.random.Generator:
    key = np.array([seed, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
