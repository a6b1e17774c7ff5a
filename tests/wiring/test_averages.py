"""Samples and guidance use the averaged parameters, compared in the files of a run.

Each run has a checkpoint with other raw parameters. test_by_hand.py compares the samples of training and the loss of an
evaluation; all runs of tests/runs/evaluate have raw parameters that differ from their average.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments import SMALLEST, smallest
from run_files import images, quiet
from saved_runs import saved_run
from stand_ins import LinearClassifier

from score_sde_jax import keys as prng
from score_sde_jax.networks import MODELS
from score_sde_jax.runs import pictures
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.tasks import ClassConditional

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_samples_and_guidance_are_those_of_averaged_parameters(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "wide_resnet", LinearClassifier)
    config, experiment, *params = saved_run(tmp_path / "run", "digits", (8, 8, 1), *SMALLEST)
    _, other, *guides = saved_run(tmp_path / "guide", "digits_classifier", (8, 8, 1))
    guided = dataclasses.replace(experiment, task=ClassConditional(), classifier=other)
    given = {"label": jnp.arange(8, dtype=jnp.int32)}

    @jax.jit
    def drawn(params, guide):
        key, indices = prng.root(config.seed, "sample"), jnp.arange(8)
        return experiment.sample(params, indices, key, {}).images, guided.sample(
            (params, guide), indices, key, given
        ).images

    plain, classes = (experiment.pixels.stored(np.asarray(x)) for x in drawn(params[1], guides[1]))
    assert not np.array_equal(plain, classes)
    for raw in ((params[0], guides[1]), (params[1], guides[0])):
        assert not np.array_equal(classes, experiment.pixels.stored(np.asarray(drawn(*raw)[1])))
    np.testing.assert_array_equal(images(sample(config, tmp_path / "run", SampleRequest(), quiet)), plain)
    task = ["task.name=class_conditional", f"task.classifier={tmp_path / 'guide'}"]
    output = sample(smallest(*task), tmp_path / "run", SampleRequest(), quiet)
    with np.load(output / "images.npz") as archive:
        np.testing.assert_array_equal(archive["images"], classes)
        np.testing.assert_array_equal(archive["labels"], np.arange(8))


def test_points_and_their_score_field_are_those_of_averaged_parameters(tmp_path, monkeypatch):
    config, experiment, raw, average = saved_run(tmp_path, "toy", (2,))
    shown = []
    monkeypatch.setattr(pictures, "score_field", lambda *args: shown.append(args) or pictures.points(args[0]))
    output = sample(config, tmp_path, SampleRequest(), quiet)
    drawn = jax.jit(experiment.sample)(average, jnp.arange(8), prng.root(config.seed, "sample"), {}).images
    with np.load(output / "points.npz") as archive:
        np.testing.assert_allclose(archive["points"], drawn, rtol=1e-4, atol=1e-4)
    points, at, score, sigma = shown[0]
    np.testing.assert_allclose(points, drawn, rtol=1e-4, atol=1e-4)
    t = jnp.asarray(0.5)
    want, of_raw = (-experiment.noise_fn(params)(jnp.asarray(at), t) / sigma for params in (average, raw))
    np.testing.assert_allclose(score, want, rtol=1e-4, atol=1e-4)
    assert sigma == pytest.approx(np.sqrt(0.02 * 4.0)) and np.abs(want - of_raw).max() > 0.1
