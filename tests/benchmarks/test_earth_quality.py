"""benchmarks/earth_quality.py on samples whose errors, distances and classes are known."""

import functools

import numpy as np
import pytest
from earth_quality import classes, errors, memorization, squares

from score_sde_jax.data import DATASETS
from score_sde_jax.data.earth import CLASSES
from score_sde_jax.runs.numbered import SampleSet

NUM, SIZE = 12, 16


@pytest.fixture
def crops(earth_dir):
    return functools.partial(DATASETS["earth"], dir=str(earth_dir), num_images=60)


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a set of samples of a task."""

    def write(images, task=None, **extras):
        description = {"task": {"samples_per_image": 1} | (task or {})}
        samples = SampleSet(tmp_path, description, images.shape[1:])
        samples.append(images, extras)
        samples.save({})
        return samples

    return write


@pytest.fixture
def originals(crops):
    return crops(split="test", image_size=SIZE).gather(np.arange(NUM))[0]


def rms(x):
    return round(float(np.sqrt(np.mean(np.square(x / 255.0)))), 4)


@pytest.mark.parametrize("colored", [True, False])
def test_colorization(crops, written, originals, colored):
    gray = np.broadcast_to(originals.mean(-1, keepdims=True), originals.shape)
    chroma = originals - gray
    samples = written(originals if colored else gray.round().astype(np.uint8), given=originals)
    figures = errors("colorization", samples, crops)
    assert figures["colorization, error of the model"] == pytest.approx(0 if colored else rms(chroma), abs=1e-3)
    assert figures["colorization, error of gray"] == rms(chroma)
    assert figures["colorization, error of a random other crop"] == rms(chroma - np.roll(chroma, 1, 0))


def test_inpainting_counts_the_hidden_half_alone(crops, written, originals):
    given, images = originals.copy(), originals.copy()
    given[:, :, SIZE // 2 :] = 128
    images[:, :, : SIZE // 2] = 0  # of the known half nothing counts
    images[:, :, SIZE // 2 :] = originals[:, :, SIZE // 2 :] ^ 1  # wrong by one level
    figures = errors("inpainting", written(images, given=given), crops)
    hidden = originals[:, :, SIZE // 2 :].astype(float)
    assert figures["inpainting, error of the model"] == round(1 / 255, 4)
    assert figures["inpainting, error of the mean crop"] == rms(hidden - hidden.mean(0))
    assert figures["inpainting, error of a random other crop"] == rms(hidden - np.roll(hidden, 1, 0))


def test_super_resolution(crops, written, originals):
    detail = originals - squares(originals, 4)
    assert np.allclose(detail.reshape(NUM, 4, 4, 4, 4, 3).mean((2, 4)), 0)
    samples = written(originals[::-1].copy(), {"factor": 4}, given=originals)
    figures = errors("super_resolution", samples, crops)
    assert figures["super_resolution, error of the model"] == rms(detail[::-1] - detail)
    assert figures["super_resolution, error of the mean of each square"] == rms(detail)


def test_training_crops_and_their_mirror_images_count_as_memorized(crops, written):
    images = crops(image_size=SIZE).gather(np.arange(NUM))[0]
    images[::2] = images[::2, :, ::-1]
    figures = memorization(written(images), crops)
    assert figures["distance to the nearest training crop, median"] == 0 and figures["ratio"] == 0
    assert figures["of held-out crops"] > 0


def test_held_out_crops_are_as_far_as_held_out_crops(crops, written, originals):
    assert memorization(written(originals), crops)["ratio"] == 1


@pytest.mark.parametrize("wrong", [0, 15])
def test_classes_are_those_of_the_rules(crops, written, wrong):
    images, labels = crops(image_size=SIZE).gather(np.arange(60))
    images[:wrong] = 128  # gray: ice
    expected = np.mean((np.arange(60) >= wrong) | (labels == CLASSES.index("ice")))
    figures = classes(written(images, labels=labels))
    assert figures["of the requested class"] == round(expected, 3) and figures["class-conditional samples"] == 60
    present = {CLASSES[label] for label in labels}
    assert {name for name in CLASSES if f"of {name}" in figures} == present
