"""The scripts of launch/ with the real main.py on this machine; stand-ins only for srun, gcloud and the cluster."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time

import numpy as np
import pytest
from shells import PODS, ROOT, TPU

pytestmark = pytest.mark.slow
RUN = (
    "python",
    "main.py",
    "--config=configs/digits.py:debug",
    "--config.train.steps=200",
    "--config.train.preview_every=0",
    "--config.train.log_every=10",
    "--config.checkpoint.every=50",
)
PATIENCE = 600
"""Longest time in seconds that a test waits for processes of main.py."""


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / "run"


def checkpoints(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def wait_for(condition, process=None):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, output(process)
        assert time.monotonic() < end
        time.sleep(0.05)


def output(process):
    """Exit status and output of a script, which it prints to both streams."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out + err


def logged_step(workdir):
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def test_local_sh_stopped_run_resumes_and_samples(shell, workdir):
    def start(*flags):
        command = ("--processes=2", "--devices=2", "--", *RUN, f"--workdir={workdir}", *flags)
        return shell.start("local.sh", *command)

    process = start("--mode=train", "--config.train.steps=100000")
    wait_for(lambda: logged_step(workdir) > 0, process)
    process.send_signal(signal.SIGTERM)
    status, text = output(process)
    assert status == 143, text
    (saved,) = checkpoints(workdir)[-1:]
    status, text = output(start("--mode=train", f"--config.train.steps={saved + 20}"))
    assert status == 0, text
    assert f"from step {saved:,}" in text
    assert checkpoints(workdir)[-1] == saved + 20
    status, text = output(start("--mode=sample", f"--config.train.steps={saved + 20}", "--num_images=20"))
    assert status == 0, text
    assert json.loads((workdir / f"samples/{saved + 20}/samples.json").read_text())["num_images"] == 20


def test_two_processes_complete_a_set_with_a_gap_and_a_damaged_file(shell, workdir):
    def finished(processes, *flags):
        command = (f"--processes={processes}", "--devices=1", "--", "python", "main.py", f"--workdir={workdir}", *flags)
        status, text = output(shell.start("local.sh", *command))
        assert status == 0, text
        return text

    def points():
        return {path.name: np.load(path)["points"] for path in (workdir / "samples" / "4").glob("points*.npz")}

    batch = "--config.sampler.batch_size=4"
    finished(1, "--config=configs/toy.py:debug", "--config.sampler.num_images=4", batch)
    for num_images in (8, 16):
        finished(1, "--mode=sample", f"--num_images={num_images}", batch)
    expected = points()
    assert set(expected) == {"points.npz", "points-000000004.npz", "points-000000008.npz"}
    (workdir / "samples" / "4" / "points.npz").write_bytes(b"PK")
    (workdir / "samples" / "4" / "points-000000004.npz").unlink()
    text = finished(2, "--mode=sample", "--num_images=16", batch)
    assert "Generated images 0 to 7 of seed 0" in text
    found = points()
    joined = [np.concatenate([rows[name] for name in sorted(rows, key=len)]) for rows in (found, expected)]
    np.testing.assert_allclose(*joined, rtol=1e-5)
    assert (workdir / "samples" / "4" / "points.npz.damaged").exists()


def test_slurm_sh_run_at_its_time_limit_is_requeued_and_resumes(shell, workdir):
    shell.fake(
        "srun",
        f"""
        while [[ $1 == --* ]]; do shift; done
        pids=()
        for ((i = 0; i < SLURM_NTASKS; i++)); do
          SLURM_STEP_NODELIST=localhost SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
          pids+=("$!")
        done
        echo "${{pids[@]}}" >{shell.tmp}/srun.pids
        status=0
        for pid in "${{pids[@]}}"; do wait "$pid" || status=$?; done
        exit "$status"
        """,
    )
    shell.fake("scancel", f'kill "$1" $(cat {shell.tmp}/srun.pids)'.replace('"$1"', "-TERM"))
    shell.fake("scontrol", "")
    variables = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "2", "JAX_PLATFORMS": "cpu"}

    def start(steps):
        command = (*RUN, "--mode=train", f"--workdir={workdir}", f"--config.train.steps={steps}")
        return shell.start("slurm.sh", *command, **variables)

    process = start(100000)
    wait_for(lambda: logged_step(workdir) > 0, process)
    process.send_signal(signal.SIGUSR1)
    status, text = output(process)
    assert status == 143, text
    assert shell.calls("scontrol") == [["requeue", variables["SLURM_JOB_ID"]]]
    (saved,) = checkpoints(workdir)[-1:]
    status, text = output(start(saved + 20))
    assert status == 0, text
    assert f"from step {saved:,}" in text
    assert checkpoints(workdir)[-1] == saved + 20


def test_kubernetes_sh_pods_of_its_manifest_train_together(shell, workdir):
    yaml = pytest.importorskip("yaml")
    shell.fake("kubectl", f"cat >{shell.tmp}/manifest")
    variables = {**PODS, "NUM_PROCESSES": "2", "GPUS_PER_POD": "0", "CONFIG": RUN[2].partition("=")[2]}
    variables |= {"VOLUME_CLAIM": "claim", "WORKDIR": "/shared/run"}
    assert shell.run("kubernetes.sh", *RUN[3:], **variables)[0] == 0
    job = yaml.safe_load((shell.tmp / "manifest").read_text())["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]

    def pod(index):
        words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in container["command"]]
        words = [word.replace("run-workers-0-0.run:", "localhost:") for word in words]  # the cluster's name service
        words = [word.replace("/shared/", f"{shell.tmp}/") for word in words]  # the volume
        return subprocess.Popen(
            [sys.executable, *words[1:]],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    for status, text in [output(process) for process in [pod(index) for index in range(job["completions"])]]:
        assert status == 0, text
    assert checkpoints(workdir)[-1] == 200


def test_tpu_pod_sh_two_workers_train_stop_and_resume(shell, workdir):
    """Slurm's variables tell the workers of each other, in place of the metadata server of a TPU."""
    shell.fake(
        "gcloud",
        f"""
        for i in 0 1; do
          export HOME={shell.home}/$i SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NTASKS=2
          export SLURM_JOB_ID={os.getpid()} SLURM_STEP_NODELIST=localhost JAX_PLATFORMS=cpu
          mkdir -p "$HOME"
          case $4 in
            scp) cp "$5" "$HOME/${{6#*:}}" ;;
            ssh) (cd "$HOME" && exec bash -c "${{7#--command=}}") || exit ;;
          esac
        done
        """,
    )
    packages = sysconfig.get_path("purelib")
    shell.fake(
        "python3.11",
        f"""
        [[ $2 != venv ]] && exit
        {sys.executable} -m venv --without-pip "$3"
        echo {packages} >"$(echo "$3"/lib/*/site-packages)/packages.pth"
        ln -s /bin/true "$3/bin/pip"
        """,
    )

    def pod(*arguments):
        status, text = output(shell.start("tpu_pod.sh", *arguments, **TPU))
        assert status == 0, text

    def log(worker):
        path = shell.home / str(worker) / "score_sde_jax" / "run.log"
        return path.read_text() if path.exists() else ""

    pod("copy")
    pod("run", "--", *RUN, "--mode=train", f"--workdir={workdir}", "--config.train.steps=100000")
    wait_for(lambda: logged_step(workdir) > 0)
    pod("stop")
    wait_for(lambda: all("stopped by SIGTERM" in log(worker) for worker in range(2)))
    (saved,) = checkpoints(workdir)[-1:]
    for worker in range(2):
        pid = int((shell.home / str(worker) / "score_sde_jax" / "run.pid").read_text())
        wait_for(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
    pod("run", "--", *RUN, "--mode=train", f"--workdir={workdir}", f"--config.train.steps={saved + 20}")
    wait_for(lambda: (workdir / f"samples/{saved + 20}/grid.png").exists())
    assert f"from step {saved:,}" in log(0)
    assert checkpoints(workdir)[-1] == saved + 20
