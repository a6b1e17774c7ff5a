"""Files and messages of a training run with known steps: metrics, speeds, the best checkpoint, a stop.

The driver runs as a user starts it, but with a step of known metrics and a simulated clock (dry.py).
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from dry import recorded
from experiments import finished
from journeys import Unsaved
from run_files import images
from two_values import context

from score_sde_jax.errors import StoppedError, UserError
from score_sde_jax.runs.checkpoint import Checkpoints
from score_sde_jax.runs.reporting import read_metrics
from score_sde_jax.runs.train import train

LOSSES = np.array([5.0, 1.0, 2.0, 4.0, 1.5, 1.0, 9.0, 9.0])


def metrics(step):
    """Count two images of a batch of four in the bin with the number of the step."""
    counts = jnp.zeros(10).at[step].set(2.0)
    norms = dict(grad_norm=10.0 * step, param_norm=20.0 * step, update_norm=30.0 * step)
    known = dict(loss=LOSSES[step - 1], level_count=counts, level_loss=6.0 * step * counts, **norms)
    return {name: jnp.asarray(value, jnp.float32) for name, value in known.items()}


def trained(workdir, *assignments, **recording):
    """Train a run and return its lines."""
    lines = []
    with recorded(**({"metrics": metrics} | recording)):
        train(finished("digits", *context("seed"), "train.steps=8", *assignments), workdir, lines.append)
    return lines


@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_metrics_are_means_over_the_steps_since_the_last(tmp_path, steps_per_call):
    assignments = "train.log_every=4", "checkpoint.every=8", f"train.steps_per_call={steps_per_call}"
    lines = trained(tmp_path, *assignments, "optimizer.warmup_steps=4", "optimizer.decay=cosine")
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [4, 8]
    for row, steps in zip(rows, (np.arange(1, 5), np.arange(5, 9)), strict=True):
        assert row["loss"] == LOSSES[steps - 1].mean()
        assert [row[f"{name}_norm"] / steps.mean() for name in ("grad", "param", "update")] == [10, 20, 30]
        assert row["level_loss"] == [6.0 * bin_ if bin_ in steps else None for bin_ in range(10)]
        step = row["step"] - 1  # the rate of that step: linear up to step 4, then a cosine that ends at 0
        assert row["learning_rate"] == pytest.approx(2e-3 * min(step / 4, 0.5 + 0.5 * np.cos(np.pi * (step - 4) / 4)))
    step_lines = [line for line in lines if line.startswith("step ")]
    assert step_lines[0].startswith("step 4/8: loss=3 grad_norm=25 learning_rate=1.50e-03 ")
    assert step_lines[1].startswith("step 8/8: loss=5.125 grad_norm=65 learning_rate=2.93e-04 ")


def test_speeds_are_those_of_the_steps_alone(tmp_path, monkeypatch):
    """A step of four images takes two seconds. A preview takes 100 s and a save 10 s, which do not count."""

    class Slow(Unsaved):
        def save(self, step, state, **more):
            seen.now += 10.0

    monkeypatch.setattr("score_sde_jax.runs.train.Checkpoints", Slow)
    assignments = "train.steps=6", "train.log_every=1", "train.preview_every=2", "checkpoint.every=3"
    lines = []
    with recorded(metrics, seconds=(2.0, 100.0)) as seen:
        train(finished("digits", *context("seed"), *assignments), tmp_path, lines.append)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["images_per_second"] for row in rows] == [2.0] * 6
    assert [row["images_per_second_per_device"] for row in rows] == [2.0] * 6
    assert [row["seconds_compute"] for row in rows] == [2.0] * 6
    assert [row.get("seconds_save", 0.0) for row in rows] == [0, 0, 0, 10, 0, 0]  # of what came before the report
    passed = np.array([2, 4, 106, 118, 220, 222])  # after previews at 2 and 4, and a save at 3
    left = [round(seconds / (i + 1) * (5 - i)) for i, seconds in enumerate(passed)]
    step_lines = [line for line in lines if line.startswith("step ")]
    assert [line.rpartition("time_left=")[2] for line in step_lines] == [
        f"0:{seconds // 60:02d}:{seconds % 60:02d}" for seconds in left
    ]
    assert any(line.startswith("Saved preview: ") and line.endswith("time=0:01:40") for line in lines)


def best(workdir):
    """Return step and loss of the best checkpoint."""
    checkpoints = Checkpoints(workdir / "best")
    (step,) = checkpoints.steps()
    return step, checkpoints.about_step(step)["loss"]


BEST = "train.log_every=1", "checkpoint.every=2", "checkpoint.keep_best=true"


def test_the_best_checkpoint_has_the_lowest_mean_loss_between_saves(tmp_path):
    trained(tmp_path, *BEST)
    assert best(tmp_path) == (6, 1.25)


def test_a_stop_keeps_the_losses_of_the_steps_before_it(tmp_path):
    """At step 6 the loss is the mean of steps 1 to 6, although the run was stopped after step 4."""
    every = *BEST, "checkpoint.every=6"
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    trained(straight, *every, "train.steps=6")
    with pytest.raises(StoppedError, match="step 4"):
        trained(stopped, *every, "train.steps=6", stop_at=2)
    assert not (stopped / "best").exists() or Checkpoints(stopped / "best").steps() == []
    trained(stopped, *every, "train.steps=6")
    assert best(straight) == best(stopped) == (6, pytest.approx(LOSSES[:6].mean()))
    assert [read_metrics(path / "metrics.jsonl")[-1]["loss"] for path in (straight, stopped)] == [1.0, 1.0]


@pytest.mark.parametrize("bad", ["loss", "grad_norm"])
def test_steps_that_are_not_finite_are_left_out_of_every_mean(tmp_path, bad):
    """Either the loss or the gradient is not finite."""

    def poisoned(step):
        values = metrics(step) | {"skipped": jnp.asarray(int(step >= 3), jnp.int32)}
        return values | ({bad: jnp.asarray(jnp.inf)} if step == 3 else {})

    lines = trained(tmp_path, "train.log_every=4", "train.max_skipped=1", "checkpoint.every=8", metrics=poisoned)
    first, second = read_metrics(tmp_path / "metrics.jsonl")
    kept = np.array([1, 2, 4])
    assert first["loss"] == pytest.approx(LOSSES[kept - 1].mean()) and first["skipped"] == second["skipped"] == 1
    assert first["grad_norm"] == pytest.approx(10 * kept.mean())
    assert first["update_norm"] == pytest.approx(30 * kept.mean())
    assert first["level_loss"] == [6.0 * bin_ if bin_ in kept else None for bin_ in range(10)]
    assert len([line for line in lines if line.startswith("step ")]) == 2
    with pytest.raises(UserError, match=r"step 3: loss .* are not finite; .* train\.max_skipped=N \(now 0\)"):
        trained(tmp_path / "strict", "train.log_every=4", "checkpoint.every=8", metrics=poisoned)
    assert not list((tmp_path / "strict").glob("checkpoints/[0-9]*"))


def test_the_step_that_is_one_too_many_is_named(tmp_path):
    """Steps 3 and 6 are not finite, in two reports of four steps."""

    def poisoned(step):
        skipped = {"skipped": jnp.asarray((step >= 3) + (step >= 6), jnp.int32)}
        return metrics(step) | skipped | ({"loss": jnp.asarray(jnp.nan)} if step in (3, 6) else {})

    with pytest.raises(UserError, match=r"^step 6: loss nan and gradient norm 60\.0 are not finite.*\(now 1\)$"):
        trained(tmp_path, "train.log_every=4", "train.max_skipped=1", "checkpoint.every=8", metrics=poisoned)


def test_a_final_set_has_the_images_that_are_asked_for_now(tmp_path):
    for num in (3, 5, 4):
        trained(tmp_path, "checkpoint.every=8", f"sampler.num_images={num}")
    assert len(images(tmp_path / "samples" / "8")) == 5


def test_a_run_that_goes_on_writes_every_step_once_and_sees_every_batch_once(tmp_path):
    seen = []
    for steps in (2, 3, 6):
        with recorded(metrics) as recorder:
            assignments = *context("seed"), f"train.steps={steps}", "optimizer.decay=constant", "train.log_every=1"
            train(finished("digits", *assignments), tmp_path, lambda line: None)
        seen += [call for call in recorder.calls if len(call) == 2]
    with recorded(metrics) as recorder:
        train(finished("digits", *assignments), tmp_path / "straight", lambda line: None)
    assert seen == [call for call in recorder.calls if len(call) == 2]
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 7))
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 6
