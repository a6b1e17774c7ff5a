"""Commands of main.py: the mode, the flags, and one line for every error."""

import os
import signal
import subprocess
import sys

import pytest
from patience import time_limit
from typed import CELEBA_HERE, DIGITS_HERE, QUICK, ROOT

from score_sde_jax.errors import RunError, StoppedError

DIGITS = "--config=configs/digits.py:debug"


def main(*arguments, **environment):
    """Result of a real process."""
    return subprocess.run(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **QUICK, **environment},
        capture_output=True,
        text=True,
        timeout=time_limit(60),
    )


def test_train_sample_eval_and_info(tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    trained = main(DIGITS, "--mode=train", workdir, "--config.train.steps", "1")
    assert trained.returncode == 0, trained.stderr
    assert (
        "step 1/1: loss=" in trained.stdout
        and "images_per_second=" in trained.stdout
        and "time_left=" in trained.stdout
    )
    drawn = main(DIGITS, "--mode=sample", workdir, "--num_images=10", "--config.train.steps=1")
    assert drawn.returncode == 0, drawn.stderr
    assert "images 8 to 9 of seed 0" in drawn.stdout and "\nNFE per image: " in drawn.stdout
    assert f"repeat: python main.py {DIGITS} --mode=sample" in drawn.stdout
    evaluated = main(DIGITS, "--mode=eval", workdir, "--num_images=5", "--config.eval.bits_per_dim=true")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "on 5 images of digits test" in evaluated.stdout and "\nbits/dim " in evaluated.stdout
    assert (tmp_path / "run" / "eval" / "1" / "metrics.json").exists()
    described = main(DIGITS, "--mode=info")
    assert described.returncode == 0 and "\nparameters: " in described.stdout, described.stderr
    for finished in (trained, drawn, evaluated, described):
        assert finished.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="a tunable of the GNU C library")
@pytest.mark.parametrize("given", ["", "glibc.malloc.arena_max=4"])
def test_memory_comes_in_large_pages_unless_the_user_has_other_wishes(tmp_path, monkeypatch, given):
    """The C library reads the environment with which the process started."""
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    environ = tmp_path / "environ"
    (tmp_path / "tells.py").write_text(f"import shutil\nshutil.copy('/proc/self/environ', {str(environ)!r})\n")
    ended = main(f"--config={tmp_path / 'tells.py'}", **({"GLIBC_TUNABLES": given} if given else {}))
    assert ended.returncode == 2 and "the file defines no function get_config" in ended.stderr
    began_with = dict(line.split("=", 1) for line in environ.read_text().split("\0") if line)
    assert began_with["GLIBC_TUNABLES"] == (given or "glibc.malloc.hugetlb=1")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "--config is missing"),
        (["--workdir=TMP/nothing"], "/nothing: holds no run; name a config, such as --config=digits"),
        (["--config=ROOT/configs/nothing.py"], "/configs/nothing.py: no such file"),
        (["--config=ROOT/configs/digit.py"], "did you mean ROOT/configs/digits.py"),
        (["--config=ROOT/configs"], "/configs: no such file"),
        (["--config=ROOT/pyproject.toml"], "/pyproject.toml: not a Python file"),
        (["--config=ROOT/configs/digits.py:tiny"], "unknown variant 'tiny'; the only one is debug"),
        (["--config=TMP/failing.py"], "/failing.py: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        (["--config=TMP/bad.py"], "/bad.py: the file defines no function get_config"),
        ([DIGITS_HERE, "--mode=fly"], "--mode=fly: choose one of train, sample, eval, info"),
        ([DIGITS_HERE, "--mode=sample", "--seed=abc"], "--seed=abc: expected an integer"),
        ([DIGITS_HERE, "--mode=sample", "--files=maybe"], "--files=maybe: expected True or False"),
        ([DIGITS_HERE, "--bogus=1"], "--bogus=1: unknown flag"),
        ([DIGITS_HERE, "more"], "more: unknown flag or argument"),
        ([DIGITS_HERE, "--num_images=many"], "--num_images=many"),
        ([DIGITS_HERE, "--mode=sample", "--num_images=0"], "error: --num_images=0: must be >= 1"),
        ([DIGITS_HERE, "--seed=-1"], "error: --seed=-1: must be >= 0 and < 2^32"),
        (
            [DIGITS_HERE, "--mode=sample", "--checkpoint=last"],
            "--checkpoint=last: give the step of a checkpoint, or best",
        ),
        ([DIGITS_HERE, "--profile=5"], "--profile=5: give the first and the last step, such as --profile=10:12"),
        ([DIGITS_HERE, "--distributed=maybe"], "--distributed=maybe: choose one of auto, on, off"),
        ([DIGITS_HERE, "--num_processes=2"], "--coordinator_address, --process_id missing"),
        ([DIGITS_HERE, "--config.parallel.name=xmap"], "parallel.name=xmap: choose one of jit, pmap"),
        ([DIGITS_HERE, "--config.parallel.name=pmap", "--config.parallel.fully_sharded=True"], "fully_sharded"),
        (
            [DIGITS_HERE, "--config.train.microbatches=3"],
            "train.batch_size=8: must be a positive multiple of 1",
        ),
        (
            [DIGITS_HERE, "--config.train.steps_per_call=3"],
            "--config.train.steps=4: must be a multiple of train.steps_per",
        ),
        ([DIGITS_HERE, "--workdir=nowhere://run"], "--workdir=nowhere://run: unsupported scheme; use a path, or gs://"),
        ([DIGITS_HERE, "--config.train.steps"], "--config.train.steps: a value is missing"),
        ([DIGITS_HERE, "--config.train.steps=1.5"], "config.train.steps=1.5: expected an integer"),
        ([DIGITS_HERE, "--config.train.stesp=5"], "--config.train.stesp: train has no such key; did you mean steps"),
        ([DIGITS_HERE, "--config.trian.steps=5"], "--config.trian.steps: no such key; did you mean train.steps"),
        ([DIGITS_HERE, "--config.data.split=most"], "--config.data.split=most: choose one of train, test, all"),
        ([DIGITS_HERE, "--config.data.name=imagenet"], "data.name=imagenet: choose one of digits, mnist,"),
        ([DIGITS_HERE, "--config.model.name=vit"], "model.name=vit: choose one of ncsn, ncsnv2,"),
        ([DIGITS_HERE, "--config.sde.name=vpp"], "sde.name=vpp: choose one of ve, vp,"),
        ([DIGITS_HERE, "--config.sampler.corrector.name=mala"], "corrector.name=mala: choose one of annealed_langevin"),
        ([DIGITS_HERE, "--config.sampler.predictor.name=rk"], "predictor.name=rk: choose one of"),
        ([DIGITS_HERE, "--config.sde.sigma_min=2.0"], "sigma_min must be > 0 and < sigma_max=1.0, got 2.0"),
        ([DIGITS_HERE, "--config.sampler.corrector.name=none"], "predictor and corrector are both none"),
        ([DIGITS_HERE, "--workdir=/proc/nothing"], "--workdir=/proc/nothing: cannot be written"),
        ([DIGITS_HERE, "--workdir=file/run"], "--workdir=file/run: cannot be written"),
        ([DIGITS_HERE, "--mode=sample", "--workdir=/nonexistent"], "train first, with --mode=train"),
        ([DIGITS_HERE, "--mode=eval"], "--workdir=runs/digits-debug: holds no checkpoint; train first"),
        (
            [DIGITS_HERE, "--mode=eval", "--checkpoint=last"],
            "--checkpoint=last: give the step of a checkpoint, or best",
        ),
        ([DIGITS_HERE, "--mode=eval", "--num_images=-1"], "error: --num_images=-1: must be >= 0"),
        ([DIGITS_HERE, "--config.eval.repeats=0"], "config.eval.repeats=0: must be >= 1"),
        ([DIGITS_HERE, "--config.eval.num_probes=0"], "config.eval.num_probes=0: must be >= 1"),
        ([DIGITS_HERE, "--config.eval.batch_size=0"], "config.eval.batch_size=0: must be >= 1"),
        ([DIGITS_HERE, "--config.eval.rtol=0.0"], "--config.eval.rtol=0.0: must be >= 1e-18"),
        ([DIGITS_HERE, "--config.eval.max_evaluations=3"], "--config.eval.max_evaluations=3: must be >= 8"),
        (
            [DIGITS_HERE, "--config.eval.t_min=1.0"],
            "--config.eval.t_min=1.0: must be >= sde.t_min=0.0 and < sde.t_max=1.0",
        ),
        ([DIGITS_HERE, "--config.eval.divergence=skilling"], "expected one of rademacher, gaussian, exact"),
        (
            ["--config=ROOT/configs/digits_classifier.py", "--config.eval.bits_per_dim=True"],
            "config.eval.bits_per_dim=True: a classifier",
        ),
        ([DIGITS_HERE, "--mode=sample"], "--workdir=runs/digits-debug: holds no checkpoint; train first"),
        ([DIGITS_HERE, "--config.task.name=inpainting"], "config.task.name=inpainting: only --mode=sample has tasks"),
        ([DIGITS_HERE, "--config.task.name=painting"], "config.task.name=painting: choose one of none, inpainting,"),
        ([DIGITS_HERE, "--mode=sample", "--neighbors=few"], "--neighbors=few"),
        (["--config=ROOT/configs/image_folder.py", "--config.data.dir=EMPTY"], "no image in it"),
        (["--config=ROOT/configs/image_folder.py", "--config.data.dir=nowhere"], "nowhere"),
        ([CELEBA_HERE, "--config.data.dir=EMPTY"], "python -m score_sde_jax.data.prepare --dataset=celeb_a"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(run, arguments, part, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, err, out = run(*arguments)
    part = part.replace("EMPTY", str(tmp_path / "empty")).replace("ROOT", str(ROOT))
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and part in err, err
    assert sorted(tmp_path.rglob("*")) == before  # no runs/ either


def test_a_broken_record_of_a_run(run, tmp_path):
    (tmp_path / "cwd" / "config.json").write_text('{"data": {')
    for mode in ("train", "sample", "eval", "info"):
        code, err, _ = run(DIGITS_HERE, f"--mode={mode}", "--workdir=.")
        assert code == 2 and err.startswith("error: config.json: not the config of a run") and err.count("\n") == 1
    assert (tmp_path / "cwd" / "config.json").read_text() == '{"data": {'


def test_ctrl_c_is_told_in_one_line(run, monkeypatch):
    import score_sde_jax.runs.train

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(score_sde_jax.runs.train, "train", interrupted)
    code, err, _ = run(DIGITS_HERE)
    assert code == 130 and err == "interrupted; the same command resumes from the last checkpoint\n"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RunError("the disk is full"), 1, "error: the disk is full\n"),
        (StoppedError("stopped after step 3", signal.SIGTERM), 143, "stopped after step 3\n"),
    ],
)
def test_faults_and_signals_have_a_status_of_their_own(run, monkeypatch, error, status, message):
    import score_sde_jax.runs.train

    def ended(*_):
        raise error

    monkeypatch.setattr(score_sde_jax.runs.train, "train", ended)
    code, err, _ = run(DIGITS_HERE)
    assert code == status and err == message


def test_a_batch_that_the_devices_cannot_share(tmp_path):
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    refused = main(DIGITS, f"--workdir={tmp_path / 'run'}", "--config.train.batch_size=7", **two)
    assert refused.returncode == 2 and not (tmp_path / "run").exists()
    assert refused.stderr == "error: --config.train.batch_size=7: must be a positive multiple of 2 devices\n"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_the_run_goes_on_from_there(tmp_path, number, status):
    """benchmarks/reliability.py compares the files of stopped runs with those of uninterrupted ones."""
    workdir = tmp_path / "run"
    command = [sys.executable, "main.py", DIGITS, f"--workdir={workdir}", "--config.train.steps=100000"]
    command += ["--config.train.log_every=50", "--config.train.preview_every=0", "--config.checkpoint.every=100000"]
    environment = {**os.environ, **QUICK}
    training = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in training.stdout:
        if line.startswith("step "):
            break
    training.send_signal(number)
    _, err = training.communicate(timeout=time_limit(30))
    assert training.returncode == status, err
    (saved,) = (int(path.name) for path in (workdir / "checkpoints").iterdir())
    first, second = err.splitlines()
    assert first == f"{number.name}: saving a checkpoint; send again to exit now"
    assert second.startswith(f"stopped by {number.name} after step {saved:,}, which is saved")
    resumed = main(DIGITS, f"--workdir={workdir}", f"--config.train.steps={saved + 2}")
    assert resumed.returncode == 0 and f"from step {saved:,}\n" in resumed.stdout, resumed.stderr
