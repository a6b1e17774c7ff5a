"""Means over the steps since a report, also after a round trip through the JSON of a checkpoint."""

import json

import numpy as np
import pytest

from score_sde_jax.errors import UserError
from score_sde_jax.runs.step import NUM_BINS, StepMetrics
from score_sde_jax.runs.window import Window


def call(losses, skipped=None):
    """Metrics of one call with these losses, all images in the second bin."""
    loss = np.asarray(losses, np.float32)
    number = len(loss)
    counts = np.zeros((number, NUM_BINS), np.float32)
    counts[:, 1] = 4
    return StepMetrics(
        loss=loss,
        grad_norm=2 * loss,
        param_norm=3 * loss,
        update_norm=4 * loss,
        level_loss=counts * np.where(np.isfinite(loss), loss, 0)[:, None],
        level_count=counts,
        skipped=np.asarray(skipped if skipped is not None else [0] * number, np.int32),
    )


def test_means_of_the_steps_since_the_last_report():
    window = Window(10)
    window.append(call([9.0]))
    window.report(0)
    for losses in ([1.0, 2.0], [6.0, 7.0]):
        window.append(call(losses))
    means = window.report(0)
    assert (means["loss"], means["grad_norm"], means["param_norm"], means["update_norm"]) == (4.0, 8.0, 12.0, 16.0)
    assert means["level_loss"] == [None, 4.0] + [None] * (NUM_BINS - 2) and means["skipped"] == 0
    assert window.loss_since_save() == 5.0 and window.loss_since_save() is None


@pytest.mark.parametrize("through_json", [False, True])
def test_a_window_comes_back_from_a_checkpoint(through_json):
    values = np.random.default_rng(0).normal(size=7)
    window = Window(0)
    window.append(call(values[:2]))
    window.report(0)
    window.append(call(values[2:5]))
    if through_json:
        window = Window.from_json(json.loads(json.dumps(window.to_json())))
    window.append(call(values[5:]))
    means = window.report(0)
    assert means["loss"] == float(values[2:].astype(np.float32).mean(dtype=np.float64))
    assert window.step == 7 and window.loss_since_save() == float(values.astype(np.float32).mean(dtype=np.float64))
    assert Window.from_json(json.loads(json.dumps(Window(5).to_json()))).step == 5


def test_steps_left_out_do_not_count_and_too_many_are_named():
    window = Window(20)
    window.append(call([1.0, np.nan, 3.0], skipped=[0, 1, 1]))
    with pytest.raises(UserError, match=r"^step 22: loss nan and gradient norm nan are not finite.*\(now 0\)$"):
        window.report(0)
    means = window.report(1)
    assert means["loss"] == 2.0 and means["skipped"] == 1
    window.append(call([1.0, np.inf], skipped=[1, 2]))
    with pytest.raises(UserError, match=r"^step 25: loss inf"):
        window.require_finite(1)
