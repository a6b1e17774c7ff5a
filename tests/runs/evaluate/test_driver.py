"""The evaluation driver: repeats, resuming, excluded measurements, and refused settings."""

import shutil

import experiments
import numpy as np
import pytest
from exact import column, finished, lines_of, metrics
from run_files import contents, quiet

from score_sde_jax.devices.parallel import Jit
from score_sde_jax.errors import UserError
from score_sde_jax.runs import evaluate, pictures
from score_sde_jax.runs.numbered import Rows
from score_sde_jax.tasks import bits
from score_sde_jax.tasks.task import Histogram

ASKED = ["eval.bits_per_dim=true", "eval.num_images=22", "eval.batch_size=8", "eval.repeats=2", "eval.rtol=1e-3"]


@pytest.fixture
def asked(runs, tmp_path):
    """A copy of a run, and a function that evaluates it: (output, lines, calls of compiled functions)."""
    source, kind, _, _ = runs("digits")
    workdir = tmp_path / "run"
    shutil.copytree(source, workdir, ignore=shutil.ignore_patterns("eval"))

    def ask(*more, say=None, checkpoint=None, seed=None):
        lines, calls, per_example = [], [], Jit.per_example

        def counted(self, function):
            compiled = per_example(self, function)

            def call(params, indices, *rest):
                calls.append(len(indices))
                return compiled(params, indices, *rest)

            return call

        def messages(line):
            lines.append(line)
            if say:
                say(line)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Jit, "per_example", counted)
            try:
                output = evaluate.evaluate(finished(kind, *ASKED, *more), workdir, checkpoint, seed, messages)
            except KilledError:
                output = None
        return output, lines, calls

    ask.workdir = workdir
    return ask


class KilledError(Exception):
    """A kill of the process."""


def killer(line_wanted):
    def say(line):
        if line.startswith(line_wanted):
            raise KilledError

    return say


RESULTS = ("metrics.json", "settings.json", "loss.jsonl", "training_loss.jsonl", "bits_per_dim.jsonl")


@pytest.mark.parametrize(
    ("line", "done"), [("loss 8/22", 1), ("training loss 22/22", 6), ("bits per dim 16/44", 8), ("bits/dim", 12)]
)
def test_a_killed_evaluation_goes_on_and_repeats_nothing(asked, line, done, tmp_path):
    output, _, calls = asked()
    whole = {name: (output / name).read_bytes() for name in RESULTS}
    assert calls == [8] * 12  # 3 of each loss, 6 of 44 images; the last ones are filled up
    shutil.rmtree(output)
    _, _, before = asked(say=killer(line))
    _, _, after = asked()
    assert (len(before), len(after)) == (done, 12 - done)
    assert {name: (output / name).read_bytes() for name in RESULTS} == whole


def test_a_line_that_was_cut_short_is_measured_again(asked):
    output, _, _ = asked()
    whole = {name: (output / name).read_bytes() for name in RESULTS}
    for cut in (1, 2, 100):
        for name in ("loss.jsonl", "bits_per_dim.jsonl"):
            (output / name).write_bytes(whole[name][:-cut])
        (output / "metrics.json").unlink()
        _, _, calls = asked()
        assert len(calls) == (0 if cut == 1 else 2)  # without its end, a line is still whole
        assert {name: (output / name).read_bytes() for name in RESULTS} == whole


def test_a_finished_evaluation_does_nothing_more(asked):
    output, _, _ = asked()
    before = contents(output)
    again, lines, calls = asked("eval.batch_size=5")
    assert again == output and calls == [] and contents(output) == before
    assert f"Nothing to do: {output} holds all results" in lines


def test_other_settings_have_a_directory_of_their_own(asked):
    output, _, _ = asked("eval.loss=false")
    before = contents(output)
    others = [
        asked("eval.loss=false", *more, **keywords)[0]
        for more, keywords in [
            (["eval.split=train"], {}),
            (["eval.rtol=1e-4"], {}),
            (["eval.divergence=gaussian"], {}),
            (["eval.num_images=9"], {}),
            ([], {"seed": 7}),
        ]
    ]
    assert len({output, *others}) == 6 and all(other.parent == output for other in others)
    assert {path: data for path, data in contents(output).items() if path.parent == output} == before
    values = column(output, "bits_per_dim", "value")
    fewer, seeded = column(others[3], "bits_per_dim", "value"), column(others[4], "bits_per_dim", "value")
    # The noise of image i in repeat r depends on the seed, r and i alone.
    np.testing.assert_allclose(fewer.reshape(2, 9), values.reshape(2, 22)[:, :9], rtol=1e-6)
    assert (np.abs(seeded - values) > 1e-4).all() and (np.abs(values[:22] - values[22:]) > 1e-4).all()


def test_more_repeats_go_on_where_the_first_stopped(asked, monkeypatch):
    drawn, histogram = [], pictures.histogram
    monkeypatch.setitem(pictures._RENDERERS, Histogram, lambda *args: drawn.append(args[0]) or histogram(*args))
    output, _, _ = asked("eval.repeats=1", "eval.loss=false")
    first = lines_of(output, "bits_per_dim")
    again, _, calls = asked("eval.repeats=3", "eval.loss=false")
    assert again == output and len(calls) == 6 and lines_of(output, "bits_per_dim")[:3] == first
    assert metrics(output)["bits_per_dim"]["repeats"] == 3
    values = column(output, "bits_per_dim", "value")
    for shown, num in zip(drawn, (22, 66), strict=True):
        np.testing.assert_array_equal(shown, values[:num])
    assert asked("eval.loss=false")[2] == [] and metrics(output)["bits_per_dim"]["repeats"] == 3
    assert asked()[2] == [8] * 6 and set(metrics(output)) >= {"loss", "training_loss", "bits_per_dim"}


def test_the_batch_size_changes_nothing(asked):
    output, _, _ = asked()
    columns = ("loss", "loss"), ("loss", "level_loss"), ("bits_per_dim", "value"), ("bits_per_dim", "evaluations")
    whole = [column(output, *where) for where in columns]
    shutil.rmtree(output)
    asked("eval.batch_size=5")
    for before, where in zip(whole, columns, strict=True):
        np.testing.assert_allclose(column(output, *where), before, rtol=2e-5)


def test_images_whose_solver_gives_up_are_named_and_left_out(asked):
    output, lines, _ = asked("eval.loss=false", "eval.repeats=1", "eval.rtol=1e-6", "eval.atol=1e-7")
    counts, values = (column(output, "bits_per_dim", key) for key in ("evaluations", "value"))
    few = int(counts.min())
    late = np.flatnonzero(counts > few)
    assert 0 < len(late) < len(counts) and not any("solver failed" in line for line in lines)
    output, lines, _ = asked(
        "eval.loss=false", "eval.repeats=1", "eval.rtol=1e-6", "eval.atol=1e-7", f"eval.max_evaluations={few}"
    )
    actual = metrics(output)["bits_per_dim"]
    assert actual["not_converged_images"] == [[0, image] for image in late] and actual["not_converged"] == len(late)
    assert actual["mean"] == pytest.approx(np.delete(values, late).mean(), rel=1e-6)
    assert any(
        f"failed in {len(late)} of 22 measurements, which are left out: images {late[0]} (repeat 0)" in line
        for line in lines
    )
    output, lines, _ = asked("eval.loss=false", "eval.max_evaluations=8")
    actual = metrics(output)["bits_per_dim"]
    assert actual["not_converged"] == 44 and actual["mean"] is actual["standard_error"] is actual["max"] is None
    assert any(line.startswith("bits/dim unknown") for line in lines)


def test_a_checkpoint_is_chosen_as_for_sampling(asked):
    for checkpoint, message in [
        (3, r"--checkpoint=3: no checkpoint of this step in .*; there are 1"),
        ("best", "keeps no best checkpoint"),
    ]:
        with pytest.raises(UserError, match=message):
            asked(checkpoint=checkpoint)
    assert not (asked.workdir / "eval").exists()
    shutil.copytree(asked.workdir / "checkpoints", asked.workdir / "best")
    assert asked("eval.bits_per_dim=false", checkpoint="best")[0] == asked.workdir / "eval" / "1"


def test_held_out_images_of_another_directory(runs, npz, tmp_path):
    workdir, kind, overrides, _ = runs("npz")
    lines = []
    output = evaluate.evaluate(finished(kind, *overrides, f"eval.dir={npz[1]}"), workdir, say=lines.append)
    assert metrics(output)["loss"]["num_images"] == metrics(output)["training_loss"]["num_images"] == 21
    assert not any("note" in line or "warning" in line for line in lines)
    other = evaluate.evaluate(finished(kind, *overrides), workdir, say=lines.append)
    assert other != output and metrics(other)["loss"]["num_images"] == 30 and "training_loss" not in metrics(other)
    assert any("warning: the run trains on these images" in line for line in lines)
    for more, message in [
        ("eval.split=test", r"config\.eval\.split=test: npz has no splits; name .* --config\.eval\.dir"),
        (f"eval.dir={tmp_path / 'nowhere'}", r"config\.eval\.dir=.*nowhere: no file"),
    ]:
        with pytest.raises(UserError, match=message):
            evaluate.evaluate(finished(kind, *overrides, more), workdir, say=quiet)
    np.savez(tmp_path / "larger.npz", images=np.zeros((3, 5, 5, 1), np.uint8))
    with pytest.raises(UserError, match=r"images of shape \(5, 5, 1\); the run was trained on \(4, 4, 1\)"):
        evaluate.evaluate(finished(kind, *overrides, f"eval.dir={tmp_path / 'larger.npz'}"), workdir, say=quiet)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("eval.split=dev", r"config\.eval\.split=dev: choose one of train, test, all"),
        ("eval.dir=there", "config.eval.dir=there: data.name=digits has no directory"),
        ("eval.loss=false eval.bits_per_dim=false", "loss and bits_per_dim are both False; nothing to evaluate"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_leaves_nothing(asked, more, message):
    with pytest.raises(UserError, match=message) as raised:
        asked(*more.split())
    assert "\n" not in str(raised.value) and not (asked.workdir / "eval").exists()


def test_more_images_than_there_are_and_an_exact_divergence_of_many(asked, monkeypatch):
    _, lines, calls = asked("eval.num_images=400", "eval.bits_per_dim=false", "eval.batch_size=100")
    assert any("digits test has 359 images, fewer than --config.eval.num_images=400" in line for line in lines)
    assert len(calls) == 8
    monkeypatch.setattr(bits, "MANY_DIMENSIONS", 63)
    lines = asked("eval.loss=false", "eval.divergence=exact")[1]
    assert any("an exact divergence needs 64 derivatives" in line for line in lines)


def test_rows_keep_every_digit_of_float32(tmp_path):
    values = np.random.default_rng(0).normal(size=50).astype(np.float32)
    values[3] = np.nan
    rows = Rows(tmp_path / "rows.jsonl")
    rows.append({"value": values, "good": values > 0})
    read = Rows(tmp_path / "rows.jsonl").columns
    np.testing.assert_array_equal(np.array(read["value"], np.float32), values)
    assert read["value"][3] is None and read["good"] == (values > 0).tolist() and len(rows) == 50


def test_training_images_are_opened_for_a_measure_of_them_alone(asked, monkeypatch):
    """A likelihood needs no training images, which may be missing."""
    opened, dataset = [], evaluate.build.dataset
    monkeypatch.setattr(
        evaluate.build,
        "dataset",
        lambda config: opened.append(config.data.split) or dataset(config),
    )
    asked("eval.loss=false")
    assert opened == ["test"]
    asked("eval.bits_per_dim=false")
    assert opened == ["test", "test", "train"]


@pytest.mark.parametrize(
    ("trained", "measured", "overlap"),
    [
        ("train", "test", False),
        ("train", "train", True),
        ("all", "test", True),
        ("train", "all", True),
        ("train[:100]", "train", True),
        ("train[:100]", "train[100:]", False),
        ("train[:100]", "train[99:200]", True),
        ("train[10%:]", "train[:5%]", True),  # slices in percent count as the whole split
    ],
)
def test_images_that_the_run_may_train_on_are_told(trained, measured, overlap):
    settings = experiments.finished("cifar10_ncsn", f"data.split={trained}", f"eval.split={measured}")
    assert evaluate._trained_on(settings, evaluate._held_out_settings(settings)) == overlap
