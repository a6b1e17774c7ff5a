"""Every script of launch/: its form, help, dry run and errors; and the completeness of its README."""

import os
import re
import shutil
import subprocess

import pytest
from shells import LAUNCH, PODS, ROOT, TPU

SCRIPTS = sorted(path.name for path in LAUNCH.glob("*.sh"))
STARTERS = [name for name in SCRIPTS if name != "common.sh"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_sound(name):
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)
    if shutil.which("shellcheck"):
        checked = subprocess.run(["shellcheck", "-x", f"launch/{name}"], cwd=ROOT, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout
    text = (LAUNCH / name).read_text()
    assert max(map(len, text.splitlines())) <= 120
    if name in STARTERS:
        assert text.startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in text
        assert os.access(LAUNCH / name, os.X_OK)


@pytest.mark.parametrize("name", STARTERS)
def test_help_is_the_comment_at_the_head(shell, name):
    status, out, err = shell.run(name, "--help")
    assert (status, err) == (0, "")
    assert f"launch/{name}" in out and "--dry-run" in out
    assert "set -euo" not in out and "SBATCH" not in out


@pytest.mark.parametrize(
    "script, arguments, variables",
    [
        ("local.sh", ("--processes=1", "--devices=1", "--", "main"), {}),
        ("slurm.sh", ("main",), {"SLURM_JOB_ID": "7"}),
        ("tpu_pod.sh", ("create",), TPU),
        ("tpu_pod.sh", ("copy",), TPU),
        ("tpu_pod.sh", ("run", "--", "main"), TPU),
        ("tpu_pod.sh", ("logs",), TPU),
        ("tpu_pod.sh", ("stop",), TPU),
        ("tpu_pod.sh", ("delete",), TPU),
        ("kubernetes.sh", (), PODS),
    ],
)
def test_dry_run_runs_nothing(shell, clone, script, arguments, variables):
    programs = ("gcloud", "kubectl", "srun", "scancel", "scontrol", "nvidia-smi", "main")
    for program in programs:
        shell.fake(program, "exit 3")
    path = clone / "launch" / script
    by_flag = shell.run(path, "--dry-run", *arguments, cwd=clone, **variables)
    by_variable = shell.run(path, *arguments, cwd=clone, DRY_RUN="1", **variables)
    status, out, _ = by_flag
    assert status == 0 and out
    if script != "local.sh":  # its port is another one every time
        assert by_variable == by_flag
    assert by_variable[0] == 0
    assert not any(shell.calls(program) for program in programs)
    assert not list((clone / ".git").glob("*.tar.gz"))


@pytest.mark.parametrize(
    "script, arguments, variables, missing",
    [
        *[("tpu_pod.sh", ("create",), TPU, name) for name in TPU],
        *[
            ("tpu_pod.sh", action, TPU, name)
            for action in [("copy",), ("run", "--", "main"), ("logs",), ("stop",), ("delete",)]
            for name in ("TPU_NAME", "ZONE")
        ],
        *[("kubernetes.sh", (), PODS, name) for name in PODS],
        ("slurm.sh", ("main",), {"SLURM_JOB_ID": "7"}, "SLURM_JOB_ID"),
        ("local.sh", ("--", "main"), {}, "--processes"),
    ],
)
def test_missing_variable_is_one_line(shell, script, arguments, variables, missing):
    rest = {name: value for name, value in variables.items() if name != missing}
    status, out, err = shell.run(script, *arguments, **rest)
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"error: set {missing}: [^\n]+\n", err)


def test_every_missing_variable_is_told(shell):
    status, _, err = shell.run("kubernetes.sh")
    assert status == 2
    assert [line.split(":")[1] for line in err.splitlines()] == [f" set {name}" for name in PODS]


@pytest.mark.parametrize(
    "script, arguments, variables, message",
    [
        ("local.sh", ("--processes=2", "--devices=1"), {}, "give the command"),
        ("local.sh", ("--processes=none", "--", "main"), {}, "set --processes"),
        ("local.sh", ("--processes=2", "--devices=0", "--", "main"), {}, "--devices=0"),
        ("local.sh", ("--processes=2", "--port=x", "--", "main"), {}, "--port=x"),
        ("local.sh", ("--processes=2", "--grace=x", "--", "main"), {}, "--grace=x"),
        ("local.sh", ("--process=2", "--", "main"), {}, "--process=2: unknown option"),
        ("local.sh", ("--processes=2", "--", "main"), {"CUDA_VISIBLE_DEVICES": "3"}, "1 are visible; --devices=1"),
        ("slurm.sh", (), {"SLURM_JOB_ID": "7"}, "give the command"),
        ("slurm.sh", ("main",), {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "4"}, "sbatch --ntasks-per-node=4"),
        ("tpu_pod.sh", ("rnu",), TPU, "rnu: unknown"),
        ("tpu_pod.sh", ("run",), TPU, "give the command"),
        ("tpu_pod.sh", ("delete", "all"), TPU, "all: delete takes no arguments"),
        ("tpu_pod.sh", ("copy",), {**TPU, "PYTHON": "python"}, "PYTHON=python"),
        ("kubernetes.sh", (), {**PODS, "NAME": "My_run"}, "NAME=My_run"),
        ("kubernetes.sh", (), {**PODS, "NAME": "a" * 53}, "at most 52"),
        ("kubernetes.sh", (), {**PODS, "NUM_PROCESSES": "0"}, "NUM_PROCESSES=0"),
        ("kubernetes.sh", (), {**PODS, "GPUS_PER_POD": "all"}, "GPUS_PER_POD=all"),
        ("kubernetes.sh", (), {**PODS, "MAX_RESTARTS": "-1"}, "MAX_RESTARTS=-1"),
        ("kubernetes.sh", (), {**PODS, "WORKDIR": "runs/x"}, "WORKDIR=runs/x is lost"),
        ("kubernetes.sh", (), {**PODS, "WORKDIR": "/shared/x"}, "set VOLUME_CLAIM"),
        ("kubernetes.sh", (), {**PODS, "WORKDIR": "/data/x", "VOLUME_CLAIM": "c"}, "WORKDIR=/data/x is lost"),
    ],
)
def test_mistake_is_one_line(shell, script, arguments, variables, message):
    shell.fake("kubectl", "cat >/dev/null")
    status, out, err = shell.run(script, *arguments, **variables)
    assert (status, out) == (2, "")
    assert message in err and re.fullmatch(r"error: [^\n]+\n", err)
    assert not shell.calls("kubectl")


def test_readme_names_every_script_and_variable():
    readme = (LAUNCH / "README.md").read_text()
    assert max(map(len, readme.splitlines())) <= 120
    for name in (*STARTERS, "Dockerfile"):
        assert f"`{name}`" in readme
    for name in ("tpu_pod.sh", "kubernetes.sh"):
        text = (LAUNCH / name).read_text()
        required = re.findall(r'(?:need|need_tpu|^) *([A-Z_]+) "', text, flags=re.MULTILINE)
        optional = re.findall(r"\$\{([A-Z_]+):[-+]", text)
        assert len(required) >= 4 and len(optional) >= 3
        for variable in (*required, *optional):
            assert f"`{variable}" in readme, variable


def test_nobody_is_named():
    """Hosts, registries, projects, buckets and zones are those of the user."""
    interfaces = {"jobset.x-k8s.io", "nvidia.com"}
    for path in LAUNCH.iterdir():
        text = path.read_text()
        hosts = set(re.findall(r"\b(?:[a-z0-9-]+\.)+(?:io|com|org|net|dev|cloud)\b", text))
        assert hosts <= interfaces, path
        assert not re.search(r"\b(?:us|europe|asia)-[a-z]+\d", text), path
        assert set(re.findall(r"gs://\w+", text)) <= {"gs://BUCKET"}, path
