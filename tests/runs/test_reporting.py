"""Reports of a run: each step once in metrics.jsonl, atomic writes, speeds and remaining times."""

import json
import sys

import pytest

from score_sde_jax.errors import UserError
from score_sde_jax.runs import reporting
from score_sde_jax.runs.reporting import (
    MetricsLog,
    Profile,
    Progress,
    Stopwatch,
    check_loggers,
    duration,
    read_metrics,
    write_atomically,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59.4, "0:00:59"), (59.6, "0:01:00"), (3661, "1:01:01"), (360_000, "100:00:00")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")
    assert path.read_bytes() == b"old"
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    monkeypatch.undo()
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and [file.name for file in tmp_path.iterdir()] == ["file"]


def test_speed_leaves_out_what_is_excluded(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(reporting.time, "monotonic", lambda: clock[0])
    progress = Progress(10, 110)
    clock[0] += 10
    assert progress.report(30) == (2.0, "0:00:40")  # 20 in 10 s, 80 are left
    clock[0] += 30
    progress.exclude(20.0)
    speed, left = progress.report(60)  # 30 in 30 s, of which 20 are excluded
    assert speed == pytest.approx(3.0) and left == "0:00:40"  # 50 in 40 s on average, 50 are left
    clock[0] += 10
    assert progress.report(70)[0] == pytest.approx(1.0)  # excluded once


def test_a_resumed_run_has_every_step_once_in_order(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step, {"loss": float(step), "level_loss": []})
    log.close()
    with log.path.open("a") as file:
        file.write('{"step": 4, "lo')  # a kill
    assert [row["step"] for row in read_metrics(log.path)] == [1, 2, 3]
    log = MetricsLog(tmp_path, 2)
    for step in (3, 4):
        log.write(step, {"loss": -float(step), "level_loss": []})
    rows = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert rows == [
        {"step": s, "loss": loss, "level_loss": []} for s, loss in [(1, 1.0), (2, 2.0), (3, -3.0), (4, -4.0)]
    ]


def test_no_metrics_yet(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_check_loggers_without_the_package_names_it(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    loggers = dict(tensorboard=False, wandb=False)
    check_loggers(tmp_path, **loggers)
    with pytest.raises(UserError, match=rf"^--config\.train\.{name}=True: needs pip install {package}$"):
        check_loggers(tmp_path, **loggers | {name: True})


def test_a_stopwatch_splits_the_time(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(reporting.time, "monotonic", lambda: clock[0])
    watch = Stopwatch()
    for seconds in (1.0, 2.5):
        with watch.timed("data"):
            clock[0] += seconds
        clock[0] += 10
    with watch.timed("save"):
        clock[0] += 4
    assert watch.report() == {"data": 3.5, "save": 4.0} and watch.report() == {"data": 0.0, "save": 0.0}


@pytest.mark.parametrize("asked", ["3", "0:2", "5:4", "a:b", "1:2:3", ":"])
def test_a_profile_that_makes_no_sense(tmp_path, asked):
    with pytest.raises(UserError, match=rf"--profile={asked}: give the first and the last step"):
        Profile(asked, tmp_path)


@pytest.mark.parametrize(("asked", "traced"), [("2:3", [1, 4]), ("4:5", [1, 8]), ("5:8", [5, 8]), ("9:9", [])])
def test_a_profile_traces_whole_calls_of_several_steps(tmp_path, monkeypatch, asked, traced):
    calls = []
    for function in ("start_trace", "stop_trace"):
        monkeypatch.setattr(reporting.jax.profiler, function, lambda *_: calls.append(step))
    profile, written = Profile(asked, tmp_path), []
    for step in (4, 8):
        profile.before(step, 4)
        written += [(profile.first, step)] if profile.after(step, None) else []
    assert calls == ([traced[0] + 3, traced[1]] if traced else []) and written == [tuple(traced)] * bool(traced)


@pytest.mark.parametrize(("asked", "traced"), [("2:3", [2, 3]), ("1:1", [1]), ("4:9", [4, 5]), ("", [])])
def test_a_profile_traces_the_steps_asked_for(tmp_path, monkeypatch, asked, traced):
    began, ended = [], []
    monkeypatch.setattr(reporting.jax.profiler, "start_trace", lambda directory: began.append((step, directory)))
    monkeypatch.setattr(reporting.jax.profiler, "stop_trace", lambda: ended.append(step))
    profile = Profile(asked, tmp_path)
    for step in range(1, 6):
        profile.before(step)
        profile.after(step, None)
    profile.close()
    assert began == ([(traced[0], str(tmp_path / "profile"))] if traced else [])
    assert ended == ([traced[-1]] if traced else [])
