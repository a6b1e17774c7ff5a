"""benchmarks/accelerator.py with tiny settings on a CPU, where the device and the reference are the same."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
CONFIGS = ("--config=configs/digits_vp.py", "--other=configs/digits.py")
DEBUG = [f"{flag.partition('=')[2]}:debug" for flag in CONFIGS]
SPEEDS = {
    "train": "images_per_second",
    "train_default_flags": "images_per_second",
    "train_tf32": "images_per_second",
    "train_others": "images_per_second",
    "train_others_tf32": "images_per_second",
    "largest_train": "images_per_second",
    "sample": "evaluations_per_second",
    "sample_others": "evaluations_per_second",
    "largest_sample": "evaluations_per_second",
}
STAND_IN = """#!/bin/sh
echo "1 parameters, torch 0, 1 threads"
echo '{"training_best": 3.0}'
"""


def accelerator(out, *flags):
    variables = dict(
        os.environ,
        JAX_PLATFORMS="cpu",
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    )
    command = [sys.executable, "benchmarks/accelerator.py", str(out), "--small", "--batch=4", *CONFIGS, *flags]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)


def figures(out, *flags):
    """Figures of a run of the benchmark, none of which says that a part failed."""
    ended = accelerator(out, "--minutes=20", *flags)
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert not [line for line in lines if line["part"] in ("failed", "cut", "out of time")]
    return lines


def check_errors(lines, subjects, key="config", precisions=("highest", "default", "bfloat16")):
    """Each subject has an error in each precision; in float32 the CPU agrees with itself."""
    errors = {(line[key], line["precision"]): line["relative_error"] for line in lines}
    assert set(errors) == {(subject, precision) for subject in subjects for precision in precisions}
    for (_, precision), error in errors.items():
        assert 1e-5 < error < 0.1 if precision == "bfloat16" else error < 1e-5


def test_parts_write_their_figures(tmp_path):
    lines = figures(tmp_path, "--parts=numerics,device,ceiling")
    device, *numerics, ceiling = lines  # in the order of the benchmark
    assert device["backend"] == "cpu" and device["jax"] == jax.__version__
    assert ceiling["copy_TB_s"] > 0 and ceiling["product_float32_highest_TFLOP_s"] > 0
    check_errors(numerics, DEBUG)


def test_originals_run_in_their_own_environment(tmp_path):
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    (tmp_path / "clones" / "ncsnv2").mkdir(parents=True)
    flags = (f"--repositories={tmp_path / 'clones'}", f"--torch_python={stand_in}", "--parts=pytorch")
    lines = figures(tmp_path / "out", *flags)
    assert [line["network"] for line in lines if "missing" in line] == ["ncsnpp", "ddpmpp", "ncsn"]
    measured = [line for line in lines if "missing" not in line]
    assert [line["flags"][:2] for line in measured] == [
        ["--network=ncsnv2", "--precision=bfloat16"],
        ["--network=ncsnv2", "--precision=tf32"],
    ]
    assert [line["training_best"] for line in measured] == [3.0, 3.0]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("device,speed", "error: --parts=device,speed: no part speed; choose from device, run, train, "),
        ("pytorch", "error: --parts=pytorch: part pytorch needs --repositories=DIR"),
    ],
)
def test_wrong_parts_are_refused_in_one_line(tmp_path, parts, message):
    ended = accelerator(tmp_path, f"--parts={parts}")
    assert ended.returncode == 2 and ended.stderr.startswith(message) and ended.stderr.count("\n") == 1


def test_a_part_that_fails_leaves_its_last_lines(tmp_path):
    ended = accelerator(tmp_path, "--parts=train", "--config=configs/absent.py")
    line = json.loads((tmp_path / "results.jsonl").read_text())
    assert ended.returncode == 0 and line["part"] == "failed" and line["what"] == "train"
    assert "absent" in line["end"].splitlines()[-1]


def test_no_part_starts_without_time(tmp_path):
    accelerator(tmp_path, "--minutes=0.1", "--parts=device")
    line = json.loads((tmp_path / "results.jsonl").read_text())
    assert (line["part"], line["what"]) == ("out of time", "device")


@pytest.mark.slow
def test_the_main_job_stops_resumes_and_samples(tmp_path):
    stop, resume, sample = figures(tmp_path, "--parts=run")
    assert (stop["what"], stop["status"]) == ("stop", 143)
    assert (resume["what"], resume["status"]) == ("resume", 0) and resume["resuming"].startswith("Resuming")
    assert (sample["what"], sample["status"]) == ("sample", 0)


@pytest.mark.slow
def test_chains_bits_and_gradients_agree_with_the_cpu(tmp_path):
    lines = figures(tmp_path, "--parts=chains,bits,gradients")
    by_part = {name: [line for line in lines if line["part"] == name] for name in ("chains", "bits", "gradients")}
    check_errors(by_part["chains"], ["annealed_langevin", "predictor_corrector"], key="chain")
    check_errors(by_part["bits"], ["configs/digits_vp.py:debug"], precisions=["highest"])
    check_errors(by_part["gradients"], DEBUG)


@pytest.mark.slow
@pytest.mark.parametrize("part", SPEEDS)
def test_speeds(tmp_path, part):
    lines = figures(tmp_path, f"--parts={part}")
    configs = DEBUG[1:] if "others" in part else DEBUG if "largest" in part else DEBUG[:1]
    batches = (4, 8, 16) if "largest" in part else (4,)
    compiled, measured = lines[::2], lines[1::2]
    assert {line["part"] for line in compiled} == {"compiled"} and {line["part"] for line in measured} == {part}
    assert [(line["config"], line["batch"]) for line in measured] == [(c, b) for c in configs for b in batches]
    for before, line in zip(compiled, measured, strict=True):
        assert line[SPEEDS[part]] > 0 and line["program_bytes"] > 0
        assert line["dtype"] == ("float32" if "tf32" in part else "bfloat16")
        same = ("config", "dtype", "batch", "compile_s")
        assert [before[name] for name in same] == [line[name] for name in same] and line["compile_s"] > 0


@pytest.mark.slow
def test_forms_of_the_state_and_slowest_operations(tmp_path):
    *states, profile = figures(tmp_path, "--parts=states,profile")
    assert [line["state"] for line in states] == ["flat", "tree", "flat, 2 steps in a call"]
    assert all(line["step_ms"] > 0 for line in states)
    assert 0 < len(profile["milliseconds_of_three_steps"]) <= 40
