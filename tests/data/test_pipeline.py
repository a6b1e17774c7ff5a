"""The stream of training batches as equations about its positions."""

import itertools

import numpy as np
import pytest
from scipy import stats

from score_sde_jax.data import all_images, examples, training_batches
from score_sde_jax.data.dataset import ArrayDataset
from score_sde_jax.errors import UserError

NUM = 50


def numbered(num=NUM, levels=256, shape=(5, 4, 3)):
    """Random images whose label is their index."""
    images = np.random.default_rng(7).integers(levels, size=(num, *shape), dtype=np.uint8)
    return ArrayDataset("numbered", images, np.arange(num), levels)


def stream(num_batches, dataset=None, **options):
    """Images and labels of the first batches, one after the other."""
    options = {"batch_size": 8, "seed": 3} | options
    batches = training_batches(dataset or numbered(), **options)
    taken = list(itertools.islice(batches, num_batches))
    return (np.concatenate([batch[key] for batch in taken]) for key in ("image", "label"))


RANDOM = {"flip": True, "dequantize": True, "value_range": (-1.0, 1.0)}


@pytest.mark.parametrize("process_count", [2, 4])
def test_the_global_batch_does_not_depend_on_the_processes(process_count):
    images, labels = stream(20, **RANDOM)
    for index in range(process_count):
        options = RANDOM | {"process_index": index, "process_count": process_count}
        own_images, own_labels = stream(20, **options)
        rows = slice(index * 8 // process_count, (index + 1) * 8 // process_count)
        assert np.array_equal(own_images, images.reshape(20, 8, 5, 4, 3)[:, rows].reshape(-1, 5, 4, 3))
        assert np.array_equal(own_labels, labels.reshape(20, 8)[:, rows].reshape(-1))


def test_the_stream_does_not_depend_on_the_batch_size():
    images, labels = stream(20, **RANDOM)
    images_of_16, labels_of_16 = stream(10, batch_size=16, **RANDOM)
    assert np.array_equal(images, images_of_16)
    assert np.array_equal(labels, labels_of_16)


@pytest.mark.parametrize("start_step", [1, 6, 13])  # 6: across the end of an epoch
def test_resuming_needs_only_the_step(start_step):
    images, labels = stream(20, **RANDOM)
    rest_images, rest_labels = stream(20 - start_step, start_step=start_step, **RANDOM)
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
    assert np.array_equal(images, examples(dataset, labels))


def test_seeds_differ():
    (images, _), (others, _) = stream(5), stream(5, seed=4)
    assert not np.array_equal(images, others)


@pytest.mark.parametrize("levels", [17, 256])
def test_dequantisation_adds_a_uniform_to_every_value(levels):
    dataset = numbered(levels=levels)
    images, labels = stream(200, dataset, dequantize=True)
    noise = images * levels - all_images(dataset)[labels]
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-3
    # Independent of the image, of the neighbouring value, and of the next example.
    flat = noise.reshape(len(noise), -1)
    values = all_images(dataset)[labels].reshape(flat.shape)
    for one, other in ((flat, values), (flat[:, :-1], flat[:, 1:]), (flat[:-1], flat[1:])):
        correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(one.size)


def test_an_image_gets_new_noise_in_every_epoch():
    images, labels = stream(100, dequantize=True)
    of_one_image = images[labels == 0]
    assert len(of_one_image) == 16
    assert len(np.unique(of_one_image, axis=0)) == 16


def test_half_of_the_images_are_mirrored():
    dataset = numbered()
    images, labels = stream(200, dataset, flip=True)
    plain = examples(dataset, labels)
    mirrored = (images == plain[:, :, ::-1]).all((1, 2, 3))
    assert ((images == plain).all((1, 2, 3)) ^ mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(mirrored))


def test_points_pass_as_they_are():
    values = np.random.default_rng(0).normal(size=(NUM, 2)).astype(np.float32)
    points = ArrayDataset("points", values, None, levels=None)
    images, labels = stream(25, points)
    assert np.array_equal(np.unique(images, axis=0), np.unique(values, axis=0))
    assert not labels.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"process_count": 3}, "train.batch_size=8: 3 processes"),
        ({"value_range": (1.0, 0.0)}, "data.value_range"),
        ({"value_range": (0.0, 1.0, 2.0)}, "data.value_range"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        training_batches(numbered(), **({"batch_size": 8, "seed": 0} | options))


@pytest.mark.parametrize("option", [{"flip": True}, {"dequantize": True}, {"value_range": (0, 1)}])
def test_options_that_points_do_not_have(option):
    points = ArrayDataset("points", np.zeros((4, 2), np.float32), None, levels=None)
    with pytest.raises(UserError, match=f"data.{next(iter(option))}="):
        training_batches(points, batch_size=2, seed=0, **option)
