"""Invalid options of tasks and classifiers: each is refused in one line."""

import json
import os
import shutil

import numpy as np
import pytest
from drawing import drawn
from experiments import finished, loaded
from run_files import made_up, quiet

from score_sde_jax import settings
from score_sde_jax.errors import UserError
from score_sde_jax.runs import workdir as directories
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.runs.train import train

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(
    ("assignments", "part"),
    [
        (["task.name=inpaint"], "config.task.name=inpaint: choose one of none, inpainting"),
        (
            ["task.name=inpainting", "task.mask=rihgt"],
            "config.task.mask=rihgt: no such file; choose one of left, right",
        ),
        (["task.name=inpainting", "task.mask=TMP/small.npy"], "has shape (2, 2), must have that of the images, (8, 8)"),
        (["task.name=inpainting", "task.mask=TMP/none.npy"], "hides no pixels"),
        (["task.name=inpainting", "task.mask=TMP/text.png"], "not a readable mask"),
        (["task.name=inpainting", "task.fraction=1.5"], "--config.task.fraction=1.5: must be > 0 and < 1"),
        (["task.name=inpainting", "task.fraction=0.01"], "--config.task.fraction=0.01: mask=right hides no pixels"),
        (["task.name=inpainting", "task.mask=top", "task.fraction=0.99"], "fraction=0.99: mask=top hides all pixels"),
        (["task.name=inpainting", "task.mask=PIPE"], "no such file; choose one of"),
        (["task.name=reconstruction", "task.source=PIPE"], "found a pipe or device"),
        (["task.name=inpainting", "task.mask=~nobodyofthisname/m"], "there is no user ~nobodyofthisname"),
        (["task.name=inpainting", "task.source=" + "x" * 300], ": File name too long"),
        (["task.name=inpainting", "task.source=TMP/text.zip"], "config.task.source=TMP/text.zip: expected a folder or"),
        (["task.name=inpainting", "task.source=TMP/nothing"], "config.task.source=TMP/nothing: no such file or folder"),
        (["task.name=inpainting", "task.source=TMP/text.png"], "not a readable image"),
        (["task.name=inpainting", "task.source=TMP/empty"], "no image in it"),
        (["task.name=colorization"], "config.task.name=colorization: needs images of 3 channels, not 1"),
        (["task.name=super_resolution", "task.factor=3"], "config.task.factor=3: must be >= 2 and divide"),
        (["task.name=class_conditional"], "--config.task.name=class_conditional: the network has no labels"),
        (["task.name=class_conditional", "task.classifier=TMP/nothing"], "nothing: no run there; train one"),
        (["task.name=class_conditional", "task.classifier=DIGITS"], "not a classifier, but a run of loss.name="),
        (
            ["task.name=class_conditional", "task.classifier=CLASSIFIER", "task.label=10"],
            "config.task.label=10: must be >= 0 and < 10, the number of classes",
        ),
        (["task.name=interpolation", "task.num_between=0"], "config.task.num_between=0: must be >= 1"),
        (["task.name=reconstruction", "task.label=3"], "config.task.label: task.name=reconstruction has no such key"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(digits, classifier, tmp_path, assignments, part):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "text.zip").write_text("no archive")
    os.mkfifo(tmp_path / "pipe.png")
    np.save(tmp_path / "small.npy", np.eye(2))
    np.save(tmp_path / "none.npy", np.zeros((8, 8)))
    words = {
        "PIPE": str(tmp_path / "pipe.png"),
        "TMP": str(tmp_path),
        "DIGITS": str(digits),
        "CLASSIFIER": str(classifier),
    }
    for word, path in words.items():
        assignments = [assignment.replace(word, path) for assignment in assignments]
        part = part.replace(word, path)
    before = sorted((digits / "samples").rglob("*"))
    with pytest.raises(UserError) as raised:
        drawn(digits, *assignments)
    assert part in str(raised.value) and "\n" not in str(raised.value)
    assert sorted((digits / "samples").rglob("*")) == before


@pytest.mark.parametrize(
    ("section", "key", "value", "part"),
    [
        ("sde", "sigma_max", 2.0, "trained on other noise, with sde.sigma_max=2.0, not 1.0"),
        ("data", "value_range", [-1.0, 1.0], "for images of data.value_range=(-1.0, 1.0), not (0.0, 1.0)"),
        (None, "image_shape", [16, 16, 1], "for images of shape (16, 16, 1), not (8, 8, 1)"),
    ],
)
def test_a_classifier_of_another_noise_or_shape_is_refused(digits, classifier, tmp_path, section, key, value, part):
    shutil.copytree(classifier, tmp_path / "other")
    path = tmp_path / "other" / "config.json"
    saved = json.loads(path.read_text())
    (saved[section] if section else saved)[key] = value
    path.write_text(json.dumps(saved))
    with pytest.raises(UserError) as raised:
        drawn(digits, "task.name=class_conditional", f"task.classifier={tmp_path / 'other'}")
    assert part in str(raised.value) and "\n" not in str(raised.value)


def test_tasks_of_images_are_refused_for_points(tmp_path):
    config = finished("toy", "train.steps=2")
    directories.record(tmp_path, config, made_up((2,)))  # refused before a checkpoint is read
    with pytest.raises(UserError, match=r"--neighbors=2: only images have them"):
        sample(config, tmp_path, SampleRequest(neighbors=2), quiet)
    with pytest.raises(UserError, match="observes images, but the data are points"):
        sample(finished("toy", "train.steps=2", "task.name=inpainting"), tmp_path, SampleRequest(), quiet)


@pytest.mark.parametrize(
    ("name", "assignments", "part"),
    [
        (
            "digits",
            ["loss.name=classification"],
            "classification: model.name=small_unet is no classifier",
        ),
        ("digits", ["model.name=wide_resnet"], "denoising: model.name=wide_resnet is a classifier"),
        (
            "digits_classifier",
            ["loss.name=denoising"],
            "denoising: model.name=wide_resnet is a classifier",
        ),
    ],
)
def test_classes_are_learned_by_classifiers_alone(name, assignments, part):
    with pytest.raises(UserError) as raised:
        finished(name, *assignments)
    assert part in str(raised.value)


def test_a_classifier_with_a_sampler_is_refused():
    config = loaded("digits_classifier", ":debug")
    config.sampler = loaded("digits", ":debug").sampler.copy_and_resolve_references()
    with pytest.raises(UserError, match=r"config\.sampler: a classifier .* generates no images; leave it out"):
        settings.from_config(config, [])


def test_sampling_from_a_classifier_is_refused(classifier):
    with pytest.raises(UserError, match=r"config\.sampler is missing: --mode=sample needs it"):
        sample(finished("digits_classifier", "train.steps=2"), classifier, SampleRequest(), quiet)


@pytest.mark.parametrize(
    ("labels", "part"),
    [(None, "npz has no labels to learn"), (np.arange(20) % 12, "--config.model.num_classes=10: npz has 12 classes")],
)
def test_data_without_the_labels_of_a_classifier_is_refused(tmp_path, labels, part):
    arrays = {"images": np.zeros((20, 8, 8, 1), np.uint8)} | ({} if labels is None else {"labels": labels})
    np.savez(tmp_path / "data.npz", **arrays)
    config = finished("digits_classifier", "data.name=npz", f"data.dir={tmp_path / 'data.npz'}")
    with pytest.raises(UserError) as raised:
        train(config, tmp_path / "run", quiet)
    assert part in str(raised.value) and not (tmp_path / "run").exists()
