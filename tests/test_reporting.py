"""What a run tells: every step once in metrics.jsonl, files whole or not at all, speeds and times left."""

import json
import sys

import pytest

from score_sde_jax import reporting
from score_sde_jax.errors import UserError
from score_sde_jax.reporting import MetricsLog, Progress, duration, read_metrics, write_atomically


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
    assert path.read_bytes() == b"new" and [found.name for found in tmp_path.iterdir()] == ["file"]


def test_speed_leaves_out_what_is_excluded(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(reporting.time, "monotonic", lambda: clock[0])
    progress = Progress(10, 110)
    clock[0] += 10
    assert progress.report(30) == (2.0, "0:00:40")  # 20 in 10 s, 80 are left
    clock[0] += 30
    progress.exclude(20.0)
    speed, left = progress.report(60)  # 30 in 30 s, of which 20 went elsewhere
    assert speed == pytest.approx(3.0) and left == "0:00:40"  # 50 in 40 s on average, 50 are left
    clock[0] += 10
    assert progress.report(70)[0] == pytest.approx(1.0)  # excluded once


def test_a_resumed_run_has_every_step_once_in_order(tmp_path):
    log = MetricsLog(tmp_path, 0, tensorboard=False)
    for step in (1, 2, 3):
        log.write(step, {"loss": float(step)})
    log.close()
    with log.path.open("a") as file:
        file.write('{"step": 4, "lo')  # a kill
    assert [row["step"] for row in read_metrics(log.path)] == [1, 2, 3]
    log = MetricsLog(tmp_path, 2, tensorboard=False)
    for step in (3, 4):
        log.write(step, {"loss": -float(step)})
    rows = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert rows == [{"step": s, "loss": loss} for s, loss in [(1, 1.0), (2, 2.0), (3, -3.0), (4, -4.0)]]


def test_no_metrics_yet(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_tensorboard_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"config\.train\.tensorboard=True needs: pip install"):
        MetricsLog(tmp_path, 0, tensorboard=True)


def test_tensorboard_gets_every_value(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, directory, purge_step):
            written.append((directory, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    module = type(sys)("tensorboardX")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    log = MetricsLog(tmp_path, 6, tensorboard=True)
    log.write(7, {"loss": 1.5, "grad_norm": 2.5})
    log.close()
    directory = str(tmp_path / "tensorboard")
    assert written == [(directory, 7), ("loss", 1.5, 7), ("grad_norm", 2.5, 7), "closed"]
