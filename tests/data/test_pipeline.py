"""The stream of training batches: a function of dataset, seed and position."""

import itertools

import numpy as np
import pytest

from score_sde_jax.data import all_images, training_batches
from score_sde_jax.data.dataset import ArrayDataset
from score_sde_jax.errors import UserError

NUM = 50


def numbered(num=NUM, levels=256, shape=(5, 4, 3)):
    """Random images whose label is their index."""
    images = np.random.default_rng(7).integers(levels, size=(num, *shape), dtype=np.uint8)
    return ArrayDataset("numbered", images, np.arange(num), levels)


def stream(num_batches, dataset=None, **options):
    """Return images and labels of the first batches, concatenated."""
    options = {"batch_size": 8, "seed": 3} | options
    batches = training_batches(dataset or numbered(), **options)
    first = list(itertools.islice(batches, num_batches))
    return (np.concatenate([batch[key] for batch in first]) for key in ("image", "label"))


@pytest.mark.parametrize("process_count", [2, 4])
def test_the_global_batch_does_not_depend_on_the_processes(process_count):
    images, labels = stream(20)
    for index in range(process_count):
        options = {"process_index": index, "process_count": process_count}
        own_images, own_labels = stream(20, **options)
        rows = slice(index * 8 // process_count, (index + 1) * 8 // process_count)
        assert np.array_equal(own_images, images.reshape(20, 8, 5, 4, 3)[:, rows].reshape(-1, 5, 4, 3))
        assert np.array_equal(own_labels, labels.reshape(20, 8)[:, rows].reshape(-1))


def test_the_stream_does_not_depend_on_the_batch_size():
    images, labels = stream(20)
    images_of_16, labels_of_16 = stream(10, batch_size=16)
    assert np.array_equal(images, images_of_16)
    assert np.array_equal(labels, labels_of_16)


@pytest.mark.parametrize("start_step", [1, 6, 13])  # 6: across the end of an epoch
def test_resuming_needs_only_the_step(start_step):
    images, labels = stream(20)
    rest_images, rest_labels = stream(20 - start_step, start_step=start_step)
    assert np.array_equal(rest_images, images[8 * start_step :])
    assert np.array_equal(rest_labels, labels[8 * start_step :])


@pytest.mark.parametrize("batch_size", [8, 120])  # 120: a batch of more than two epochs
def test_every_epoch_is_another_permutation(batch_size):
    _, labels = stream(600 // batch_size, batch_size=batch_size)
    epochs = labels.reshape(12, NUM)
    assert np.array_equal(np.sort(epochs), np.broadcast_to(np.arange(NUM), epochs.shape))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 12


def test_labels_belong_to_their_images():
    dataset = numbered()
    images, labels = stream(20, dataset)
    assert labels.dtype == np.int32
    assert images.dtype == np.uint8 and np.array_equal(images, all_images(dataset)[labels])


def test_seeds_differ():
    (images, _), (others, _) = stream(5), stream(5, seed=4)
    assert not np.array_equal(images, others)


def test_points_are_unchanged():
    values = np.random.default_rng(0).normal(size=(NUM, 2)).astype(np.float32)
    points = ArrayDataset("points", values, None, levels=None)
    images, labels = stream(25, points)
    assert np.array_equal(np.unique(images, axis=0), np.unique(values, axis=0))
    assert not labels.any()


def test_a_batch_that_the_processes_do_not_divide_is_refused():
    with pytest.raises(
        UserError, match=r"--config\.train\.batch_size=8: must be a positive multiple of 3, the number of processes"
    ):
        training_batches(numbered(), batch_size=8, seed=0, process_count=3)
