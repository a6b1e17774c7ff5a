"""Standard streams that are closed, full or missing, signals at any time, and unexpected errors."""

import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from patience import time_limit
from typed import QUICK, ROOT

TOY = "--config=configs/toy.py:debug"


def start(arguments, redirect="", **environment):
    """Start main.py in a shell with redirected streams; the streams of the shell are pipes."""
    command = f"exec {sys.executable} main.py {arguments} {redirect}"
    return subprocess.Popen(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**os.environ, **QUICK, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process):
    """Exit status, output and errors."""
    out, err = process.communicate(timeout=time_limit(60))
    return process.returncode, out, err


def test_a_full_device_for_the_output_is_one_line_and_status_1():
    status, _, err = ended(start(f"{TOY} --mode=info", "> /dev/full"))
    assert (status, err) == (1, "error: standard output: No space left on device\n")


def test_a_reader_that_goes_away_ends_info_as_sigterm_does():
    process = start(f"{TOY} --mode=info")
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=time_limit(60))
    assert process.returncode == 128 + signal.SIGTERM
    assert err == "SIGTERM: exiting now; the same command resumes from what is saved\n"


@pytest.mark.slow
def test_a_reader_that_goes_away_lets_a_run_save_its_state(tmp_path):
    process = start(f"{TOY} --workdir={tmp_path / 'run'} --config.train.steps=100000 --config.train.log_every=50")
    for line in process.stdout:
        if line.startswith("step "):
            break
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=time_limit(60))
    assert process.returncode == 128 + signal.SIGTERM and re.search(r"stopped by SIGTERM after step [\d,]+, which", err)
    assert list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("redirect", "closed"), [(">&-", [1]), ("2>&-", [2]), ("<&- >&- 2>&-", [0, 1, 2])])
def test_no_file_of_a_run_gets_the_number_of_a_closed_stream(tmp_path, redirect, closed):
    """What a library prints on standard output would be written into that file."""
    config = tmp_path / "tells.py"
    config.write_text(
        "import os, pathlib\n"
        f"places = [os.path.realpath(f'/proc/self/fd/{{number}}') for number in {closed}]\n"
        f"pathlib.Path({str(tmp_path / 'places')!r}).write_text(' '.join(places))\n"
    )
    status, *_ = ended(start(f"--config={config}", redirect))
    assert status == 2 and (tmp_path / "places").read_text() == " ".join(["/dev/null"] * len(closed))


@pytest.mark.slow
def test_a_run_without_streams_leaves_the_same_files(tmp_path):
    settings = f"{TOY} --config.train.steps=2 --config.train.preview_every=0"
    assert ended(start(f"{settings} --workdir={tmp_path / 'closed'}", "<&- >&- 2>&-"))[0] == 0
    assert ended(start(f"{settings} --workdir={tmp_path / 'open'}"))[0] == 0
    closed, opened = (
        {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*") if "checkpoints" not in path.parts}
        for name in ("closed", "open")
    )
    assert closed == opened
    names = ("samples/2/points.npz", "samples/2/grid.png")
    assert all((tmp_path / "closed" / name).read_bytes() == (tmp_path / "open" / name).read_bytes() for name in names)


@pytest.mark.parametrize("seconds", [0.6, 1.2, 2.0])
def test_ctrl_c_in_the_first_seconds_is_one_line(tmp_path, seconds):
    process = start(f"{TOY} --workdir={tmp_path / 'run'} --config.train.steps=1000000")
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    status, _, err = ended(process)
    assert status == 130, err
    assert re.fullmatch(r"SIGINT: (exiting now; .*|saving .*\nstopped by SIGINT after step .*)\n", err), err


def test_devices_that_are_not_there():
    status, _, err = ended(start(f"{TOY} --mode=info", JAX_PLATFORMS="nonsense"))
    assert status == 2 and err.startswith("error: JAX_PLATFORMS=nonsense: JAX cannot start (") and err.count("\n") == 1


def test_letters_that_the_terminal_lacks(tmp_path):
    folder = tmp_path / "ünï\u202e"
    status, _, err = ended(start(f"--workdir={folder} --mode=info", PYTHONIOENCODING="ascii"))
    assert status == 2 and "\\xfcn\\xef" in err and "holds no run" in err


def test_an_error_that_nobody_foresaw_leaves_its_traceback_in_a_file(run, monkeypatch):
    import score_sde_jax.runs.info

    def broken(*_):
        raise ZeroDivisionError("nobody\nforesaw this")

    monkeypatch.setattr(score_sde_jax.runs.info, "info", broken)
    status, err, out = run("--config=ROOT/configs/toy.py:debug", "--mode=info")
    assert status == 1 and err.count("\n") == 1 and out == ""
    match = re.fullmatch(r"error: unexpected ZeroDivisionError: nobody foresaw this; please report it; (.*)\n", err)
    path = pathlib.Path(match[1].removeprefix("the traceback is in "))
    assert "main.py --config=" in path.read_text() and "in broken" in path.read_text()
    path.unlink()
    status, err, _ = run("--config=ROOT/configs/toy.py:debug", "--mode=info", "--debug")
    assert status == 1 and "Traceback (most recent call last)" in err and "in broken" in err
    assert logging.getLogger("score_sde_jax.runs.checkpoint").isEnabledFor(logging.DEBUG)
    run("--config=ROOT/configs/toy.py:debug", "--mode=info")
    assert not logging.getLogger("score_sde_jax.runs.checkpoint").isEnabledFor(logging.DEBUG)


def test_memory_that_is_not_there(run, monkeypatch):
    from score_sde_jax.devices import costs

    monkeypatch.setattr(costs, "memory_limit", lambda: 2**20)
    status, err, _ = run("--config=ROOT/configs/digits.py:debug", "--config.model.widths=(512,)")
    assert status == 2 and err.startswith("error: state, gradient and 8 images need at least ")
    assert "on each device, which has 0.0 GiB; choose a smaller --config.train.batch_size or model" in err


def test_a_training_step_that_needs_more_memory_than_there_is(run, monkeypatch, tmp_path):
    """XLA counts the activations, which the estimate before the compilation does not know."""
    from score_sde_jax.devices import costs
    from score_sde_jax.runs import workdir

    toy = ["--config=ROOT/configs/toy.py:debug", f"--workdir={tmp_path / 'run'}", "--config.train.batch_size=4096"]
    monkeypatch.setattr(costs, "memory_limit", lambda: 2**20)
    status, err, out = run(*toy)
    assert status == 2 and "Compiled the training step" in out, err
    assert err.startswith("error: the compiled training step needs at least 0.0 GiB on each device, which has 0.0 GiB;")
    assert "--config.train.microbatches" in err and "--config.train.rematerialize=True" in err
    assert not [path for path in (tmp_path / "run").iterdir() if path.name != workdir.LOCK]
