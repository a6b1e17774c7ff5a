"""main.py as a user types it: the mode, the flags, and one line for every mistake."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
DIGITS = "--config=configs/digits.py:debug"


def main(*arguments, **environment):
    """Result of a real process."""
    return subprocess.run(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_train_sample_and_info(tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    trained = main(DIGITS, "--mode=train", workdir, "--config.train.steps", "1")
    assert trained.returncode == 0, trained.stderr
    assert "step 1/1  loss" in trained.stdout and "images/s" in trained.stdout and "left" in trained.stdout
    drawn = main(DIGITS, "--mode=sample", workdir, "--num_images=10", "--config.train.steps=1")
    assert drawn.returncode == 0, drawn.stderr
    assert "images 8 to 9 of seed 0" in drawn.stdout and "network evaluations each" in drawn.stdout
    assert f"repeat: python main.py {DIGITS} --mode=sample" in drawn.stdout
    described = main(DIGITS, "--mode=info")
    assert described.returncode == 0 and "\nparameters: " in described.stdout, described.stderr
    for finished in (trained, drawn, described):
        assert finished.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "--config is missing"),
        (["--config=configs/nothing.py"], "--config=configs/nothing.py: no such file"),
        ([DIGITS, "--mode=fly"], "--mode=fly: choose one of train, sample, info"),
        ([DIGITS, "--bogus=1"], "--bogus=1: unknown flag"),
        ([DIGITS, "more"], "more: unknown flag or argument"),
        ([DIGITS, "--num_images=many"], "--num_images=many"),
        ([DIGITS, "--config.train.steps"], "--config.train.steps: a value is missing"),
        ([DIGITS, "--config.train.steps=1.5"], "config.train.steps=1.5: expected an integer"),
        ([DIGITS, "--config.data.split=most"], "split"),
        ([DIGITS, "--workdir=/proc/nothing"], "--workdir=/proc/nothing: cannot be written"),
        ([DIGITS, "--workdir=pyproject.toml/run"], "--workdir=pyproject.toml/run: cannot be written"),
        ([DIGITS, "--mode=sample", "--workdir=/nonexistent"], "train first"),
        (["--config=configs/image_folder.py", "--config.data.dir=EMPTY"], "no image in this folder"),
        (["--config=configs/celeba.py", "--config.data.dir=EMPTY"], "score_sde_jax.data.prepare --dataset=celeb_a"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(arguments, part, tmp_path, monkeypatch, capfd):
    from absl import flags

    import main as entry

    monkeypatch.chdir(ROOT)
    arguments = [argument.replace("EMPTY", str(tmp_path)) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    flags.FLAGS.unparse_flags()
    for name in ("config", "mode", "workdir", "num_images"):
        flags.FLAGS[name].unparse()
    with pytest.raises(SystemExit) as ended:
        entry.run()
    told = capfd.readouterr()
    assert ended.value.code == 2
    assert told.err.startswith("error: ") and told.err.count("\n") == 1 and part in told.err, told.err
    assert not list(tmp_path.iterdir()) and not (ROOT / "runs" / "digits").exists()


def test_a_batch_that_the_devices_cannot_share(tmp_path):
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    refused = main(DIGITS, f"--workdir={tmp_path / 'run'}", "--config.train.batch_size=7", **two)
    assert refused.returncode == 2 and not (tmp_path / "run").exists()
    assert refused.stderr == "error: config.train.batch_size=7 must be a positive multiple of the 2 devices\n"
