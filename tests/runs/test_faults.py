"""Runs that are stopped, killed, corrupted, given NaN or invalid settings; and resuming to the same bits."""

import errno
import os
import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments import smallest
from orbax.checkpoint import v1 as ocp
from run_files import contents, images, quiet, restored, timeless

from score_sde_jax.data import Pixels
from score_sde_jax.devices.parallel import Jit
from score_sde_jax.errors import RunError, UserError
from score_sde_jax.runs import workdir as directories
from score_sde_jax.runs.reporting import read_metrics
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.runs.train import train

pytestmark = pytest.mark.usefixtures("quick_compilation", "blank_figures")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A finished run of digits, 4 steps in one go, at a constant learning rate with every random part of the input."""
    workdir = tmp_path_factory.mktemp("digits")
    train(smallest(*RANDOM), workdir, quiet)
    return workdir


RANDOM = (  # large steps, so that another checkpoint draws other images
    "optimizer.decay=constant",
    "optimizer.learning_rate=0.05",
    "train.ema_decay=0.5",
    "train.preview_every=0",
    "data.flip=true",
    "data.dequantize=true",
)


def test_a_run_that_was_stopped_equals_one_that_was_not(digits, tmp_path):
    for steps in (2, 4):
        train(smallest(*RANDOM, f"train.steps={steps}"), tmp_path, quiet)
    straight, stopped = (restored(workdir, smallest(*RANDOM), 4) for workdir in (digits, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, straight, stopped)
    assert not np.array_equal(*(jax.tree.leaves(part)[0] for part in (straight.params, straight.ema_params)))
    np.testing.assert_array_equal(*(images(workdir / "samples" / "4") for workdir in (digits, tmp_path)))
    metrics = [read_metrics(workdir / "metrics.jsonl") for workdir in (digits, tmp_path)]
    for a, b in zip(*metrics, strict=True):
        assert timeless(a) == timeless(b)


@pytest.mark.parametrize("batch_size", [3, 8])
def test_image_i_depends_on_seed_and_i_alone(digits, tmp_path, batch_size):
    whole = images(digits / "samples" / "4").astype(int)
    config = smallest(*RANDOM, f"sampler.batch_size={batch_size}", "sampler.num_frames=1")
    again = images(sample(config, digits, SampleRequest(output=tmp_path / "again"), quiet)).astype(int)
    assert np.abs(again - whole).max() <= 1
    assert len({image.tobytes() for image in whole}) == 8


def test_another_seed_checkpoint_or_sampler_has_a_directory_of_its_own(digits, tmp_path):
    base, before = digits / "samples" / "4", contents(digits / "samples" / "4")
    other = sample(smallest(*RANDOM), digits, SampleRequest(seed=5), quiet)
    assert other.parent == base and np.abs(images(other).astype(int) - images(base)).max() > 1
    earlier = sample(smallest(*RANDOM), digits, SampleRequest(checkpoint=2), quiet)
    assert earlier == digits / "samples" / "2" and not np.array_equal(images(earlier), images(base))
    with pytest.raises(UserError, match="holds samples of another seed, sampler or checkpoint; choose another"):
        sample(smallest(*RANDOM), digits, SampleRequest(seed=5, output=base), quiet)
    with pytest.raises(UserError, match=r"--checkpoint=3: no checkpoint of this step in .*; there are 2, 4"):
        sample(smallest(*RANDOM), digits, SampleRequest(checkpoint=3), quiet)
    assert {path: data for path, data in contents(base).items() if other not in path.parents} == before


def test_another_model_or_data_is_refused_and_nothing_written(digits):
    before = contents(digits)
    for assignment, messages in [
        ("model.width=16", r"model\.width=4, these settings have 16"),
        ("data.split=all", r"data\.split=train, these settings have all"),
        ("sde.sigma_max=2.0", r"sde\.sigma_max=1\.0, these settings have 2\.0"),
    ]:
        for attempt in (train, lambda c, w, say: sample(c, w, SampleRequest(), say)):
            with pytest.raises(UserError, match=rf"the saved run has {messages}; use another --workdir"):
                attempt(smallest(*RANDOM, assignment), digits, quiet)
    with pytest.raises(UserError, match=r"batch_size=0"):
        train(smallest(*RANDOM, "train.batch_size=0"), digits, quiet)
    assert contents(digits) == before


def damage(checkpoint):
    for file in checkpoint.rglob("*"):
        if file.is_file() and file.stat().st_size > 200:
            file.write_bytes(file.read_bytes()[:100])


def test_a_cut_checkpoint_falls_back_and_says_so(tmp_path, caplog):
    train(smallest(*RANDOM), tmp_path, quiet)
    damage(tmp_path / "checkpoints" / "4")
    lines, damaged = [], contents(tmp_path)
    earlier = sample(smallest(*RANDOM), tmp_path, SampleRequest(output=tmp_path / "out"), lines.append)
    assert {path: data for path, data in contents(tmp_path).items() if earlier not in path.parents} == damaged
    assert lines[0].startswith("Sampling from step 2 of ") and len(images(earlier)) == 8
    train(smallest(*RANDOM, "train.steps=5"), tmp_path, lines.append)
    assert f"checkpoint {tmp_path / 'checkpoints' / '4'} cannot be read" in caplog.text
    assert (tmp_path / "checkpoints" / "4.damaged").is_dir()
    assert any("Resuming" in line and "step 2" in line for line in lines)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    for step in (4, 5):
        damage(tmp_path / "checkpoints" / str(step))
    before = contents(tmp_path / "checkpoints")
    for attempt in (train, lambda c, w, say: sample(c, w, SampleRequest(), say)):
        with pytest.raises(UserError, match=r"none of the checkpoints \[4, 5\] can be read"):
            attempt(smallest(*RANDOM, "train.steps=5"), tmp_path, quiet)
    assert contents(tmp_path / "checkpoints") == before


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_logged(tmp_path):
    exploding = ["optimizer.learning_rate=1e17", "train.steps=50"]
    with pytest.raises(UserError, match=r"step \d: loss .* not finite"):
        train(smallest(*exploding), tmp_path, quiet)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows and all(np.isfinite(row["loss"]) for row in rows)


def poisoned(monkeypatch, steps):
    """Return batches whose images are NaN in some steps."""
    from score_sde_jax.runs import train as driver

    batches = driver.training_batches

    def with_poison(*args, start_step=0, **keywords):
        for number, batch in enumerate(batches(*args, start_step=start_step, **keywords), start=start_step + 1):
            yield batch | {"image": np.full_like(batch["image"], 255)} if number in steps else batch

    dequantized = Pixels.dequantized

    def poisonous(self, keys, stored):
        return jnp.where(stored == 255, jnp.nan, dequantized(self, keys, stored))

    monkeypatch.setattr(Pixels, "dequantized", poisonous)  # of the digits' 17 values none is 255
    monkeypatch.setattr(driver, "training_batches", with_poison)


def test_updates_that_are_not_finite_are_left_out_up_to_a_number(tmp_path, monkeypatch):
    poisoned(monkeypatch, {2, 3})
    with pytest.raises(
        UserError, match=r"step 3: loss nan and gradient norm nan are not finite.*max_skipped=N \(now 1"
    ):
        train(smallest(*RANDOM, "train.max_skipped=1", "train.log_every=4"), tmp_path / "few", quiet)
    assert sorted(path.name for path in (tmp_path / "few" / "checkpoints").iterdir()) == ["2"]
    train(smallest(*RANDOM, "train.max_skipped=2"), tmp_path / "run", quiet)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["skipped"] for row in rows] == [0, 1, 2, 2] and [row["loss"] for row in rows[1:3]] == [None, None]
    state = restored(tmp_path / "run", smallest(), 4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)) and int(state.skipped) == 2
    adam = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == jnp.int32]
    assert {int(count) for count in adam} == {2}  # the moments saw the two good steps


def test_a_resume_in_the_middle_of_a_report_reports_the_same(tmp_path):
    """The report of steps 1 to 4 has the mean over all of them, for any step at which the run was stopped."""
    config = [*RANDOM, "train.log_every=4", "checkpoint.every=1", "checkpoint.keep=5"]
    train(smallest(*config), tmp_path / "whole", quiet)
    for start in (1, 3):
        stopped = tmp_path / str(start)
        (stopped / "checkpoints").mkdir(parents=True)
        shutil.copytree(tmp_path / "whole" / "checkpoints" / str(start), stopped / "checkpoints" / str(start))
        train(smallest(*config), stopped, quiet)
        whole, again = (read_metrics(workdir / "metrics.jsonl") for workdir in (tmp_path / "whole", stopped))
        assert [timeless(row) for row in again] == [timeless(row) for row in whole] and whole[0]["step"] == 4


def test_a_final_set_that_was_cut_off_is_completed(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "samples")
    lines = []
    train(smallest(*RANDOM), tmp_path / "run", lines.append)
    assert any("finished run of 4 steps" in line for line in lines)
    np.testing.assert_array_equal(images(tmp_path / "run" / "samples" / "4"), images(digits / "samples" / "4"))


def test_train_finished_run_without_its_grid_draws_it(digits, tmp_path):
    """As after a kill between the last shard of the final set and its pictures."""
    shutil.copytree(digits, tmp_path / "run")
    grid = tmp_path / "run" / "samples" / "4" / "grid.png"
    grid.unlink()
    train(smallest(*RANDOM), tmp_path / "run", quiet)
    assert grid.read_bytes() == (digits / "samples" / "4" / "grid.png").read_bytes()


def test_train_workdir_of_another_run_is_refused_before_its_checkpoints_are_read(digits, tmp_path):
    """The other run deletes old checkpoints, so one that is being read may vanish."""
    shutil.copytree(digits, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").rglob("*"):
        if path.is_file():
            path.unlink()
    with directories.claimed(tmp_path / "run"), pytest.raises(UserError, match="another run writes there"):
        train(smallest(*RANDOM, "train.steps=6"), tmp_path / "run", quiet)


def test_two_runs_in_one_workdir(digits):
    with directories.claimed(digits):
        before = contents(digits)
        with pytest.raises(UserError, match=rf"another run writes there \(process {os.getpid()} on .+\)"):
            train(smallest(*RANDOM, "train.steps=6"), digits, quiet)
        assert contents(digits) == before


def test_the_best_checkpoint_is_kept_apart(tmp_path, monkeypatch, caplog):
    """Also in a stopped run, and if a better checkpoint follows while the last one is still being written."""
    rename = os.rename

    def slow(path, target):
        time.sleep(0.5 if (tmp_path / "best") in Path(path).parents else 0)
        rename(path, target)

    monkeypatch.setattr(os, "rename", slow)
    losses = [*RANDOM, "checkpoint.every=1", "checkpoint.keep=1", "checkpoint.keep_best=true"]
    for steps in (2, 4):
        train(smallest(*losses, f"train.steps={steps}"), tmp_path, quiet)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    best = min(rows, key=lambda row: row["loss"])["step"]
    assert [int(path.name) for path in (tmp_path / "best").iterdir()] == [best]
    lines, request = [], SampleRequest(checkpoint="best", output=tmp_path / "out")
    sample(smallest(*losses), tmp_path, request, lines.append)
    assert lines[0].startswith(f"Sampling from step {best} of ")
    kept = tmp_path / "best" / str(best) / "_CHECKPOINT_METADATA"
    kept.write_bytes(kept.read_bytes()[:200])
    train(smallest(*losses, "train.steps=6"), tmp_path, quiet)
    assert f"best/{best} cannot be read" in caplog.text and "the next best checkpoint replaces it" in caplog.text
    later = min(read_metrics(tmp_path / "metrics.jsonl")[4:], key=lambda row: row["loss"])["step"]
    assert [int(path.name) for path in (tmp_path / "best").iterdir()] == [later]
    shutil.rmtree(tmp_path / "best")
    with pytest.raises(
        UserError,
        match=r"^--checkpoint=best: .* keeps no best checkpoint; train with --config\.checkpoint\.keep_best=True",
    ):
        sample(smallest(*losses), tmp_path, request, quiet)


def test_a_full_disk(digits, tmp_path, monkeypatch):
    """The last checkpoint remains, and the run resumes from it."""
    shutil.copytree(digits, tmp_path / "run")
    save = ocp.training.Checkpointer.save_checkpointables_async

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ocp.training.Checkpointer, "save_checkpointables_async", full)
    longer = smallest(*RANDOM, "train.steps=6")
    with pytest.raises(RunError, match=r"checkpoints/6 cannot be saved \(.*No space left on device\)"):
        train(longer, tmp_path / "run", quiet)
    monkeypatch.setattr(ocp.training.Checkpointer, "save_checkpointables_async", save)
    lines = []
    train(longer, tmp_path / "run", lines.append)
    assert any("Resuming" in line and "step 4" in line for line in lines)
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_device_that_is_lost(digits, tmp_path, monkeypatch):
    shutil.copytree(digits, tmp_path / "run")

    def lost(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone\nand more")

    lost.memory_analysis = lambda: None
    monkeypatch.setattr(Jit, "compiled", lambda *_: lost)
    with pytest.raises(RunError, match=r"a device or another process failed \(INTERNAL: the device is gone\)$"):
        train(smallest(*RANDOM, "train.steps=6"), tmp_path / "run", quiet)
    assert RunError.status == 1


@pytest.mark.parametrize(
    ("assignments", "part"),
    [
        (["data.image_size=16"], r"data\.image_size=16: the images of .* are 8 by 8"),
        (["data.channels=3"], r"data\.channels=3: the images of .* have 1"),
    ],
)
def test_data_that_differ_from_the_config(tmp_path, assignments, part):
    path = tmp_path / "data.npz"
    np.savez(path, images=np.zeros((20, 8, 8, 1), np.uint8))
    config = smallest("data.name=npz", f"data.dir={path}", *assignments)
    with pytest.raises(UserError, match=part):
        train(config, tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


def test_sampling_before_training(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint; train first"):
        sample(smallest(), tmp_path / "nothing", SampleRequest(), quiet)
    assert not (tmp_path / "nothing").exists()
