"""Files of a run that a kill, an editor or a full disk corrupted: read, or quarantined with a warning."""

import errno
import json
import os
import pathlib
import shutil
import signal
import time

import numpy as np
import pytest
from experiments import finished, smallest
from PIL import Image
from run_files import contents, images, quiet

from score_sde_jax.errors import RunError, StoppedError, UserError
from score_sde_jax.runs import batch_sampler, records, workdir
from score_sde_jax.runs.evaluate import evaluate
from score_sde_jax.runs.numbered import SampleSet
from score_sde_jax.runs.reporting import MetricsLog, read_metrics
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.runs.train import train

pytestmark = pytest.mark.usefixtures("quick_compilation", "blank_figures")

STEADY = ("optimizer.decay=constant", "train.preview_every=0", "sampler.num_images=4", "eval.num_images=4")
ROW = {"loss": 0.5, "level_loss": [None, 0.25]}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A finished run of digits of 4 steps."""
    directory = tmp_path_factory.mktemp("digits")
    train(smallest(*STEADY), directory, quiet)
    return directory


@pytest.fixture
def run(digits, tmp_path):
    """A copy of the run."""
    shutil.copytree(digits, tmp_path / "run")
    return tmp_path / "run"


# ------------------------------------------------------------------------- metrics.jsonl


def metrics(path, *rows):
    path.write_bytes(b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows))
    return path


def test_metrics_cut_at_every_byte_keep_their_whole_lines(tmp_path, caplog):
    path = metrics(tmp_path / "metrics.jsonl", *({"step": step, **ROW} for step in (1, 2, 3)))
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        whole = content[:length].count(b"\n") + (content[length : length + 1] == b"\n")
        log = MetricsLog(tmp_path, 3)
        assert [row["step"] for row in read_metrics(log.path)] == [1, 2, 3][:whole]
    assert not caplog.records and os.listdir(tmp_path) == ["metrics.jsonl"]


@pytest.mark.parametrize(
    "bad",
    [
        b"1\n",
        b'{"loss": 1}\n',
        b'{"step": 2}\n',
        b"\xff\xfe\n",
        b"\n",
        b'{"step": 2, "lo\n',
        b"[" * 50_000 + b"\n",
        b'{"step": 2, "loss": "text", "level_loss": []}\n',
        b'{"step": 2.5, "loss": 1, "level_loss": []}\n',
    ],
    ids=lambda bad: repr(bad[:24]),
)
def test_a_line_that_is_no_row_of_metrics_costs_that_line_alone(tmp_path, caplog, bad):
    path = metrics(tmp_path / "metrics.jsonl", {"step": 1, **ROW}, bad, {"step": 3, **ROW}, {"step": 4, **ROW})
    before = path.read_bytes()
    log = MetricsLog(tmp_path, 3)
    log.write(4, {**ROW, "loss": 4.0})
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(1, 0.5), (3, 0.5), (4, 4.0)]
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == before
    assert "1 of 4 lines cannot be read and are left out; it is kept as metrics.jsonl.damaged" in caplog.text


def test_values_that_are_not_finite_are_null(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write(1, {"loss": float("nan"), "grad_norm": float("inf"), "level_loss": [float("nan"), 1.0]})
    (line,) = log.path.read_text().splitlines()
    values = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert values == {"step": 1, "loss": None, "grad_norm": None, "level_loss": [None, 1.0]}


def test_a_run_goes_on_past_damaged_metrics(run):
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(lines[0] + lines[1][:20] + b"\n" + lines[2] + lines[3])
    train(smallest(*STEADY, "train.steps=6"), run, quiet)
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [1, 3, 4, 5, 6]


# ------------------------------------------------------------------------- config.json

NOT_A_CONFIG = [b"", b"[]", b"null", b"{}", b'{"data": 3}', b"\xff\xfe", b"[" * 100_000, b"3", b'"text"']


@pytest.mark.parametrize("content", NOT_A_CONFIG, ids=lambda content: repr(content[:12]))
def test_a_config_that_is_none_is_named_and_stays(run, content):
    (run / "config.json").write_bytes(content)
    for attempt in (
        lambda: train(smallest(*STEADY, "train.steps=6"), run, quiet),
        lambda: sample(smallest(*STEADY), run, SampleRequest(), quiet),
        lambda: evaluate(smallest(*STEADY), run, say=quiet),
        lambda: workdir.saved_settings(run),
    ):
        with pytest.raises(UserError, match=r"config\.json: "):
            attempt()
    assert (run / "config.json").read_bytes() == content


def test_a_config_cut_at_every_byte_is_whole_or_refused(run):
    content = (run / "config.json").read_bytes()
    saved = workdir.saved_config(run)
    for length in range(len(content)):
        (run / "config.json").write_bytes(content[:length])
        try:
            assert workdir.saved_config(run) == saved and content[:length].strip() == content.strip()
        except UserError as error:
            assert "config.json: not the config of a run" in str(error)


def test_a_folder_in_the_place_of_a_file(run):
    (run / "config.json").unlink()
    (run / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config\.json: Is a directory"):
        train(smallest(*STEADY), run, quiet)


# ------------------------------------------------------------------------- sets of samples


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_arrays(path):
    np.savez(path, other=np.zeros(3))


def other_size(path):
    np.savez(path, images=np.zeros((4, 5, 5, 1), np.uint8))


def pickled(path):
    np.savez(path, images=np.array([None]))


DAMAGE = [
    ("samples.json", lambda path: path.write_text("[]")),
    ("samples.json", lambda path: path.write_text("{}")),
    ("samples.json", cut),
    ("images.npz", cut),
    ("images.npz", lambda path: path.write_bytes(b"")),
    ("images.npz", other_arrays),
    ("images.npz", other_size),
    ("images.npz", pickled),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_a_damaged_set_is_set_aside_and_drawn_again(run, caplog, name, damage):
    directory = run / "samples" / "4"
    whole = images(directory)
    other = sample(smallest(*STEADY), run, SampleRequest(seed=5), quiet)
    beside = contents(other)
    damage(directory / name)
    damaged = (directory / name).read_bytes()
    assert sample(smallest(*STEADY), run, SampleRequest(), quiet) == directory
    np.testing.assert_array_equal(images(directory), whole)
    assert (directory / f"{name}.damaged").read_bytes() == damaged and f"{name}.damaged" in caplog.text
    assert contents(other) == beside
    damage(directory / name)
    with pytest.raises(UserError, match=rf"^--output=.*: .*{name}: .*; choose another$"):
        sample(smallest(*STEADY), run, SampleRequest(output=directory), quiet)
    train(smallest(*STEADY), run, quiet)  # the final set of a finished run
    np.testing.assert_array_equal(images(directory), whole)
    assert (directory / f"{name}.damaged2").exists()


def test_only_the_damaged_file_of_a_set_is_drawn_again(run, caplog):
    directory = run / "samples" / "4"
    for number in (6, 9):
        sample(smallest(*STEADY, f"sampler.num_images={number}"), run, SampleRequest(), quiet)
    whole, kept = images(directory), (directory / "images.npz").read_bytes()
    shutil.rmtree(directory / "images", ignore_errors=True)
    (directory / "images-000000004.npz").write_bytes(b"x")
    (directory / "images-000000099.npz").mkdir()
    lines = []
    sample(smallest(*STEADY, "sampler.num_images=9"), run, SampleRequest(), lines.append)
    np.testing.assert_array_equal(images(directory), whole)
    assert (directory / "images.npz").read_bytes() == kept
    assert any(line.startswith("Generated images 4 to 5 of seed 0") for line in lines)
    names = sorted(path.name for path in directory.iterdir() if ".damaged" in path.name)
    assert names == ["images-000000004.npz.damaged", "images-000000099.npz.damaged"] and len(caplog.records) == 2


def test_every_process_reads_a_damaged_set_before_the_first_renames_a_file(tmp_path, monkeypatch):
    """Otherwise a slow process finds no damage, and waits for another event than the first one."""
    description, damaged = {"seed": 0}, tmp_path / "images.npz"
    with batch_sampler.open_set(tmp_path, None, description, (4, 4, 1)):
        pass
    damaged.write_bytes(b"PK")
    waits = []
    monkeypatch.setattr(batch_sampler, "wait_for_all", lambda what: waits.append((what, damaged.exists())))
    with batch_sampler.open_set(tmp_path, None, description, (4, 4, 1)) as samples:
        assert len(samples) == 0 and (tmp_path / "images.npz.damaged").exists()
    assert waits == [
        ("read the set", True),
        ("quarantine corrupted samples", False),
        ("read the set", False),
        ("open the set", False),
    ]


def test_samples_without_their_record_are_kept_aside(run):
    directory = run / "samples" / "4"
    before = (directory / "images.npz").read_bytes()
    (directory / "samples.json").unlink()
    sample(smallest(*STEADY), run, SampleRequest(seed=5), quiet)
    assert (directory / "images.npz.damaged").read_bytes() == before


def test_classes_of_other_names_are_refused(tmp_path):
    data = tmp_path / "data"
    for name in ("cats", "dogs"):
        (data / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((8, 8), 40 * i + 60, np.uint8)).save(data / name / f"{i}.png")
    config = ["data.name=image_folder", f"data.dir={data}", "data.image_size=8", "data.channels=1", "data.labels=true"]
    config += ["model.num_classes=2", "train.preview_every=0", "sampler.num_images=2"]
    train(finished("digits_classes", *config), tmp_path / "run", quiet)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["class_names"] == ["cats", "dogs"]
    (data / "dogs").rename(data / "birds")
    before = contents(tmp_path / "run")
    with pytest.raises(UserError, match=r"class 0 of the run was cats, in image_folder it is birds; use another"):
        train(finished("digits_classes", *config, "train.steps=6"), tmp_path / "run", quiet)
    assert contents(tmp_path / "run") == before
    (data / "birds").rename(data / "dogs")
    (data / "cats" / "0.png").unlink()
    lines = []
    train(finished("digits_classes", *config, "train.steps=6"), tmp_path / "run", lines.append)
    assert "note: the dataset had 8 images in this run before, now it has 7" in lines


def test_another_network_at_the_same_step_has_a_set_of_its_own(run):
    """Trained anew after its checkpoints were deleted."""
    directory = run / "samples" / "4"
    before = contents(directory)
    shutil.rmtree(run / "checkpoints")
    other = [*STEADY, "optimizer.learning_rate=0.05"]
    train(smallest(*other), run, quiet)
    drawn = sample(smallest(*other, "sampler.num_images=6"), run, SampleRequest(), quiet)
    assert drawn.parent == directory and len(images(drawn)) == 6
    assert {path: data for path, data in contents(directory).items() if drawn not in path.parents} == before
    assert not np.array_equal(images(drawn)[:4], images(directory))
    evaluated = [evaluate(smallest(*settings), run, say=quiet) for settings in (other, other)]
    assert evaluated[0] == evaluated[1]


def test_a_set_of_an_earlier_version_is_continued(run):
    """Its description does not name the parameters."""
    path = run / "samples" / "4" / "samples.json"
    record = json.loads(path.read_text())
    del record["description"]["parameters"]
    path.write_text(json.dumps(record))
    assert sample(smallest(*STEADY, "sampler.num_images=6"), run, SampleRequest(), quiet) == path.parent
    assert len(images(path.parent)) == 6


def test_samplers_of_two_kinds_at_once_take_two_directories(run):
    shutil.rmtree(run / "samples")
    first = {"checkpoint_step": 4, "parameters": "a", "seed": 0, "sampler": {}}
    with batch_sampler.open_set(run / "samples" / "4", None, first, (8, 8, 1)) as samples:
        with batch_sampler.open_set(run / "samples" / "4", None, first | {"seed": 1}, (8, 8, 1)) as others:
            assert others.directory.parent == samples.directory == run / "samples" / "4"
        with (
            pytest.raises(UserError, match=r"samples/4: another run writes there \(process \d+ on "),
            batch_sampler.open_set(run / "samples" / "4", None, first, (8, 8, 1)),
        ):
            pass


def test_a_directory_that_cannot_be_written_is_refused_before_drawing(run, monkeypatch):
    monkeypatch.setattr(batch_sampler, "draw_set", lambda *_: pytest.fail("drawn"))
    for output in (pathlib.Path("/proc/x"), run / "config.json", run / "config.json" / "x"):
        with pytest.raises(UserError, match=f"^--output={output}: cannot be written: "):
            sample(smallest(*STEADY), run, SampleRequest(output=output), quiet)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_drawing_saves_what_is_drawn(run, tmp_path, number):
    more = [*STEADY, "sampler.num_images=20", "sampler.batch_size=4"]

    def stop_after_12(line):
        if line.startswith("sample 8/"):
            os.kill(os.getpid(), number)
            time.sleep(1)  # the other batches take less time than the thread that reads signals on a busy machine

    with pytest.raises(StoppedError, match=r"after sample \d+, which is saved") as stopped:
        sample(smallest(*more), run, SampleRequest(seed=3), stop_after_12)
    assert stopped.value.status == 128 + number
    (directory,) = (run / "samples" / "4").glob("seed3-*")
    saved = images(directory)
    assert 8 <= len(saved) < 20
    assert sample(smallest(*more), run, SampleRequest(seed=3), quiet) == directory
    np.testing.assert_array_equal(images(directory)[: len(saved)], saved)
    whole = sample(smallest(*more), run, SampleRequest(seed=3, output=tmp_path / "whole"), quiet)
    np.testing.assert_array_equal(images(directory), images(whole))


# ------------------------------------------------------------------------- evaluations


def test_damaged_results_are_measured_again(run):
    output = evaluate(smallest(*STEADY), run, say=quiet)
    whole = contents(output)
    for name, content in [
        ("metrics.json", b""),
        ("metrics.json", b"[]"),
        ("loss.jsonl", b"1\n"),
        ("loss.jsonl", b"\xff\xfe\n"),
        ("loss.jsonl", b'{"loss": 1}\n'),
        ("loss.jsonl", b'{"value": [1], "draws": [1, 2]}\n'),
    ]:
        (output / name).write_bytes(content)
        assert evaluate(smallest(*STEADY), run, say=quiet) == output
        assert {path: data for path, data in contents(output).items() if ".damaged" not in path.name} == whole
    (output / "settings.json").write_text("{")
    with pytest.raises(UserError, match=r"settings\.json: not the settings of an evaluation"):
        evaluate(smallest(*STEADY), run, say=quiet)


# ------------------------------------------------------------------------- full and read-only disks


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_file_that_cannot_be_written_is_named(run, monkeypatch, code):
    """A full disk is a fault of the machine, a forbidden folder an error of the user; no temporary file remains."""
    before = contents(run)
    write = pathlib.Path.write_bytes

    def refuse(path, data):
        write(path, data[: len(data) // 2])
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(pathlib.Path, "write_bytes", refuse)
    kind = RunError if code == errno.ENOSPC else UserError
    with pytest.raises(kind, match=rf"^{run}/.*: {os.strerror(code)}$"):
        sample(smallest(*STEADY, "sampler.num_images=9"), run, SampleRequest(), quiet)
    with pytest.raises(kind, match=rf"^{run}/.*: {os.strerror(code)}$"):
        evaluate(smallest(*STEADY), run, say=quiet)
    monkeypatch.undo()
    after = {path: data for path, data in contents(run).items() if path.name != ".lock" and path.name != "grid.png"}
    assert after == {path: before[path] for path in after} and not list(run.rglob("*.tmp"))


def test_a_folder_in_the_place_of_a_picture_is_named(run):
    (run / "loss.png").unlink()
    (run / "loss.png").mkdir()
    with pytest.raises(UserError, match=r"loss\.png: Is a directory"):
        train(smallest(*STEADY, "train.steps=6"), run, quiet)


def test_set_aside_never_replaces_what_was_set_aside_before(tmp_path):
    for i in range(3):
        (tmp_path / "a.json").write_text(str(i))
        records.quarantine(tmp_path / "a.json", "why")
    names = ["a.json.damaged", "a.json.damaged2", "a.json.damaged3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [(tmp_path / name).read_text() for name in names] == ["0", "1", "2"]


def test_a_set_begins_with_its_record(tmp_path):
    SampleSet(tmp_path, {"seed": 1}, (4, 4, 1)).begin()
    assert json.loads((tmp_path / "samples.json").read_text()) == {"description": {"seed": 1}, "num_images": 0}
    with pytest.raises(UserError, match="holds samples of another seed"):
        SampleSet(tmp_path, {"seed": 2}, (4, 4, 1))
