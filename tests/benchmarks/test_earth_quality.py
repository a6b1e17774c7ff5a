"""benchmarks/earth_quality.py on samples whose errors, distances and classes are known."""

import functools
import json

import numpy as np
import pytest
from earth_quality import classes, errors, labels, main, memorization, squares, weighted_median

from score_sde_jax.data import DATASETS
from score_sde_jax.data.earth import CLASSES
from score_sde_jax.runs.numbered import SampleSet

NUM, SIZE = 12, 16


@pytest.fixture
def crops(earth_dir):
    return functools.partial(DATASETS["earth"], dir=str(earth_dir), num_images=60)


@pytest.fixture
def write_samples(tmp_path):
    """Return a function that writes a set of samples of a task."""

    def write(images, task=None, **extras):
        description = {"task": {"samples_per_image": 1} | (task or {})}
        samples = SampleSet(tmp_path, description, images.shape[1:])
        samples.append(images, extras)
        samples.save({})
        return samples

    return write


@pytest.fixture
def more(crops):
    """The held-out crops, and one more."""
    return crops(split="test", image_size=SIZE).gather(np.arange(NUM + 1))[0]


@pytest.fixture
def originals(more):
    return more[:-1]


def halves(images, column=SIZE // 2):
    """Observations of the left part."""
    given = images.copy()
    given[:, :, column:] = 128
    return given


def rms(x):
    return round(float(np.sqrt(np.mean(np.square(x / 255.0)))), 4)


@pytest.mark.parametrize("colored", [True, False])
def test_colorization(crops, write_samples, more, originals, colored):
    chroma_of_next = more[1:] - more[1:].mean(-1, keepdims=True)
    gray = np.broadcast_to(originals.mean(-1, keepdims=True), originals.shape)
    chroma = originals - gray
    samples = write_samples(originals if colored else gray.round().astype(np.uint8), given=originals)
    figures = errors("colorization", samples, crops)
    assert figures["colorization, error of the model"] == pytest.approx(0 if colored else rms(chroma), abs=1e-3)
    assert figures["colorization, error of gray"] == rms(chroma)
    assert figures["colorization, error of the next crop"] == rms(chroma - chroma_of_next)


def test_inpainting_counts_the_hidden_half_alone(crops, write_samples, more, originals):
    given, images = halves(originals), originals.copy()
    images[:, :, : SIZE // 2] = 0  # of the known half nothing counts
    images[:, :, SIZE // 2 :] = originals[:, :, SIZE // 2 :] ^ 1  # wrong by one level
    figures = errors("inpainting", write_samples(images, given=given), crops)
    hidden, hidden_of_next = (x[:, :, SIZE // 2 :].astype(float) for x in (originals, more[1:]))
    assert figures["inpainting, error of the model"] == round(1 / 255, 4)
    assert figures["inpainting, error of the mean crop"] == rms(hidden - hidden.mean(0))
    assert figures["inpainting, error of the next crop"] == rms(hidden - hidden_of_next)


def test_super_resolution(crops, write_samples, originals):
    detail = originals - squares(originals, 4)
    assert np.allclose(detail.reshape(NUM, 4, 4, 4, 4, 3).mean((2, 4)), 0)
    samples = write_samples(originals[::-1].copy(), {"factor": 4}, given=originals)
    figures = errors("super_resolution", samples, crops)
    assert figures["super_resolution, error of the model"] == rms(detail[::-1] - detail)
    assert figures["super_resolution, error of the mean of each square"] == rms(detail)


@pytest.mark.parametrize("repeats", [1, 4])
def test_each_sample_is_compared_with_its_own_crop(crops, write_samples, originals, repeats):
    """The last crop may have fewer samples than the others."""
    images = originals.repeat(repeats, 0)[:10]
    samples = write_samples(images, {"samples_per_image": repeats}, given=halves(images, 4))
    assert errors("inpainting", samples, crops)["inpainting, error of the model"] == 0


def test_the_mean_of_samples_is_compared_too(crops, write_samples, originals):
    images = originals[:6].repeat(2, 0).astype(int)
    images[::2, :, SIZE // 2 :] = 255 - images[::2, :, SIZE // 2 :]  # the mean of both is 127.5 everywhere
    samples = write_samples(images.astype(np.uint8), {"samples_per_image": 2}, given=halves(originals[:6].repeat(2, 0)))
    figures = errors("inpainting", samples, crops)
    hidden = originals[:6, :, SIZE // 2 :].astype(float)
    assert figures["inpainting, error of the mean of the samples of a crop"] == rms(hidden - 127.5)
    assert figures["inpainting, error of the model"] == pytest.approx(rms(2 * hidden - 255) / np.sqrt(2), abs=1e-4)


def test_samples_of_other_crops_are_refused(crops, write_samples):
    images = crops(split="test", image_size=SIZE, downsampling=3).gather(np.arange(NUM))[0]
    with pytest.raises(SystemExit, match="default options"):
        errors("colorization", write_samples(images, given=images), crops)


def test_hidden_pixels_that_differ_from_image_to_image_are_refused(crops, write_samples, originals):
    given = originals.copy()
    given[::2, :, :8] = given[1::2, :, 8:] = 128
    with pytest.raises(SystemExit, match="mask=random"):
        errors("inpainting", write_samples(originals, given=given), crops)


def test_the_command_prints_json(write_samples, originals, earth_dir, monkeypatch, capsys):
    samples = write_samples(originals, given=halves(originals))
    flags = [f"--inpainting={samples.directory}", f"--map={earth_dir}", "--json"]
    monkeypatch.setattr("sys.argv", ["earth_quality.py", *flags])
    main()
    assert json.loads(capsys.readouterr().out)["inpainting, error of the model"] == 0


def test_training_crops_and_their_mirror_images_count_as_memorized(crops, write_samples):
    images = crops(image_size=SIZE).gather(np.arange(NUM))[0]
    images[::2] = images[::2, :, ::-1]
    figures = memorization(write_samples(images), crops)
    assert figures["distance to the nearest training crop, median"] == 0 and figures["ratio"] == 0
    assert figures["of held-out crops"] > 0


def test_held_out_crops_are_as_far_as_held_out_crops(crops, write_samples, originals):
    assert memorization(write_samples(originals), crops)["ratio"] == 1


def test_the_classes_of_held_out_crops_get_the_shares_of_the_samples(crops, write_samples, originals):
    """Held-out crops of one class, each several times, are as far as the held-out crops of that class."""
    of_class = originals[labels(originals) == np.bincount(labels(originals)).argmax()]
    assert 3 <= len(of_class) < NUM
    images = np.concatenate([of_class] * NUM)[: NUM // len(of_class) * len(of_class)]
    figures = memorization(write_samples(images), crops)
    assert figures["ratio"] == pytest.approx(1, abs=0.15)


def test_weighted_median():
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1, 1, 3])
    assert weighted_median(values, weights) == np.median(np.repeat(values, weights))


@pytest.mark.parametrize("wrong", [0, 15])
def test_classes_are_those_of_the_rules(crops, write_samples, wrong):
    images, own = crops(image_size=SIZE).gather(np.arange(60))
    images[:wrong] = 128  # gray: ice
    expected = np.mean((np.arange(60) >= wrong) | (own == CLASSES.index("ice")))
    figures = classes(write_samples(images, labels=own))
    assert figures["of the requested class"] == round(expected, 3) and figures["class-conditional samples"] == 60
    present = {CLASSES[label] for label in own}
    assert {name for name in CLASSES if f"of {name}" in figures} == present
