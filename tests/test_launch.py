"""launch/: what each script would run, and the scripts run against stand-ins for gcloud, srun, kubectl and main.py."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(path.name for path in LAUNCH.glob("*.sh"))
STARTERS = [name for name in SCRIPTS if name != "common.sh"]
TPU = dict(TPU_NAME="pod", ZONE="zone", ACCELERATOR_TYPE="kind", RUNTIME_VERSION="image")
PODS = dict(IMAGE="image:1", NAME="run", NUM_PROCESSES="4", GPUS_PER_POD="8", CONFIG="c.py", WORKDIR="gs://b/r")
MAIN = ("python", "main.py", "--config=c.py")


class Shell:
    """Runs scripts with nothing but the system's programs, the stand-ins of `bin` and the given variables."""

    def __init__(self, tmp_path):
        self.tmp, self.bin, self.home = tmp_path, tmp_path / "bin", tmp_path / "home"
        self.bin.mkdir()
        self.home.mkdir()

    def fake(self, name, body):
        """A program of this name that writes down its arguments, one line each, then does `body`."""
        path = self.bin / name
        record = f'printf "%s\\n" "$@" >>"{self.tmp}/{name}.calls"; echo >>"{self.tmp}/{name}.calls"'
        path.write_text(f"#!/bin/bash\n{record}\n{body}\n")
        path.chmod(0o755)

    def calls(self, name):
        """The arguments of every call of a stand-in."""
        path = self.tmp / f"{name}.calls"
        return [call.splitlines() for call in path.read_text().split("\n\n")[:-1]] if path.exists() else []

    def start(self, script, *arguments, cwd=ROOT, **variables):
        """The script as a running process."""
        path = f"{self.bin}:{Path(sys.executable).parent}:/usr/bin:/bin"
        return subprocess.Popen(
            [str(script if Path(script).is_absolute() else LAUNCH / script), *arguments],
            cwd=cwd,
            env=dict(PATH=path, HOME=str(self.home), GIT_CONFIG_GLOBAL="/dev/null", LC_ALL="C", **variables),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments, **keywords):
        """Exit status, output and errors of the script."""
        return finish(self.start(*arguments, **keywords))


def finish(process):
    try:
        out, err = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def eventually(condition):
    """Wait until the condition holds; fail after ten seconds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


@pytest.fixture
def clone(shell):
    """A repository with launch/, a tracked file that was changed since the commit, and one that is not tracked."""
    root = shell.tmp / "clone"
    shutil.copytree(LAUNCH, root / "launch")
    (root / "pyproject.toml").write_text("committed\n")
    for words in ("init", "add .", "commit --message=one"):
        subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e", *words.split()],
            cwd=root,
            check=True,
            capture_output=True,
            env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"},
        )
    (root / "pyproject.toml").write_text("changed\n")
    (root / "secret").write_text("not tracked\n")
    return root


# Every script


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


# local.sh

COORDINATION = "--coordinator_address=127.0.0.1:12345 --num_processes=2 --process_id={}"
# Stands in for main.py: says what it got and then does what its flags ask for.
PROGRAM = """
import os, signal, sys, time
given = dict(word[2:].split("=", 1) for word in sys.argv[1:])
number = given["process_id"]
def stop(received, frame):
    print("saved on", signal.Signals(received).name, flush=True)
    sys.exit(128 + received)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in given else stop)
if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, stop)
print("flags", *sys.argv[1:], flush=True)
print("environment", *[os.environ.get(key) for key in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS", "XLA_FLAGS")])
open(os.path.join(given["dir"], number), "w").close()
if number == given.get("fails"):
    while len(os.listdir(given["dir"])) < int(given["num_processes"]):
        time.sleep(0.01)
    sys.exit(7)
time.sleep(float(given.get("sleep", 0)))
"""


@pytest.fixture
def program(shell):
    """The words that start the stand-in for main.py."""
    (shell.tmp / "program.py").write_text(PROGRAM)
    (shell.tmp / "started").mkdir()
    return sys.executable, "-S", str(shell.tmp / "program.py"), f"--dir={shell.tmp / 'started'}"


def started(shell):
    return len(list((shell.tmp / "started").iterdir()))


def test_local_dry_run_of_cpu_processes(shell):
    status, out, err = shell.run(
        "local.sh",
        *("--processes=2", "--devices=4", "--port=12345", "--dry-run", "--", *MAIN, "--workdir=a b"),
        XLA_FLAGS="--xla_other",
    )
    flags = "'XLA_FLAGS=--xla_other --xla_force_host_platform_device_count=4'"
    command = f"env JAX_PLATFORMS=cpu {flags} python main.py --config=c.py '--workdir=a b' {COORDINATION}\n"
    assert (status, err) == (0, "")
    assert out == command.format(0) + command.format(1)


@pytest.mark.parametrize("visible, gpus", [(None, "01"), ("5,3,1", "53")])
def test_local_dry_run_takes_a_gpu_each(shell, visible, gpus):
    variables = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    status, out, err = shell.run("local.sh", "--processes=2", "--port=12345", "--dry-run", *MAIN, **variables)
    command = f"env CUDA_VISIBLE_DEVICES={{}} python main.py --config=c.py {COORDINATION}\n"
    assert (status, err) == (0, "")
    assert out == command.format(gpus[0], 0) + command.format(gpus[1], 1)


def test_local_gives_every_process_its_flags_and_devices(shell, program):
    status, out, err = shell.run("local.sh", "--processes=3", "--devices=2", "--", *program)
    assert (status, err) == (0, "")
    ports = set()
    for number in range(3):
        prefix = f"[{number}] "
        flags, environment = [line.removeprefix(prefix) for line in out.splitlines() if line.startswith(prefix)]
        found = re.fullmatch(
            rf"flags --dir=\S+ --coordinator_address=127\.0\.0\.1:(\d+) --num_processes=3 --process_id={number}", flags
        )
        assert found, flags
        ports.add(int(found[1]))
        assert environment == "environment None cpu --xla_force_host_platform_device_count=2"
    assert len(ports) == 1 and 20000 <= ports.pop() < 32000


def test_local_asks_the_driver_for_gpus(shell, program):
    shell.fake("nvidia-smi", "echo 0; echo 1")
    status, out, err = shell.run("local.sh", "--processes=2", "--", *program)
    assert (status, err) == (0, "")
    assert "[0] environment 0 None None\n" in out and "[1] environment 1 None None\n" in out
    assert shell.calls("nvidia-smi") == [["--query-gpu=index", "--format=csv,noheader"]]
    status, _, err = shell.run("local.sh", "--processes=3", "--", *program)
    assert status == 2 and "2 are visible" in err


@pytest.mark.parametrize("sent, received", [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT"), ("SIGHUP", "SIGTERM")])
def test_local_forwards_signals(shell, program, sent, received):
    process = shell.start("local.sh", "--processes=2", "--devices=1", "--", *program, "--sleep=60")
    eventually(lambda: started(shell) == 2)
    os.killpg(process.pid, signal.Signals[sent])  # the whole group, as the terminal does
    status, out, err = finish(process)
    assert status == 128 + signal.Signals[received]
    assert f"[0] saved on {received}\n" in out and f"[1] saved on {received}\n" in out
    assert err == ""


def test_local_stops_the_others_when_one_fails(shell, program):
    status, out, err = shell.run("local.sh", "--processes=3", "--devices=1", "--", *program, "--sleep=60", "--fails=1")
    assert status == 7
    assert err == "process 1 ended with status 7; stopping the others\n"
    assert "[0] saved on SIGTERM\n" in out and "[2] saved on SIGTERM\n" in out


def test_local_kills_what_does_not_stop(shell, program):
    began = time.monotonic()
    status, out, err = shell.run(
        "local.sh", "--processes=2", "--devices=1", "--grace=0", "--", *program, "--sleep=60", "--fails=0", "--deaf=1"
    )
    assert status == 7 and "saved" not in out
    assert time.monotonic() - began < 15
    assert err.startswith("process 0 ended with status 7; stopping the others\n")


def test_local_ends_after_the_last_line(shell):
    shell.fake("sed", 'sleep 0.3; exec /usr/bin/sed "$@"')
    shell.fake("wrapper", '"$@"; echo end')
    command = (str(LAUNCH / "local.sh"), "--processes=1", "--devices=1", "--", "echo", "line")
    status, out, _ = shell.run(shell.bin / "wrapper", *command)
    assert status == 0 and re.fullmatch(r"\[0\] line [^\n]*\nend\n", out)


def test_local_reports_processes_that_end_at_once(shell):
    for command, expected in (("true", 0), ("false", 1)):
        assert shell.run("local.sh", "--processes=3", "--devices=1", "--", command)[0] == expected


# slurm.sh

DIRECTIVES = ["--job-name=score-sde", "--requeue", "--open-mode=append", "--signal=B:USR1@180"]


@pytest.fixture
def slurm(shell):
    """Stand-ins: srun exits with $STATUS at once, or with $AFTER when scancel passes it a signal."""
    shell.fake(
        "srun",
        f"""
        trap 'exit "$AFTER"' TERM
        echo $$ >{shell.tmp}/srun.pid
        [[ -z ${{AFTER:-}} ]] || while :; do sleep 0.05; done
        exit "$STATUS"
        """,
    )
    shell.fake("scancel", f'kill -TERM "$(cat {shell.tmp}/srun.pid)"')
    shell.fake("scontrol", "")
    # sbatch runs a copy from a directory of its own.
    return Path(shutil.copy(LAUNCH / "slurm.sh", shell.tmp / "slurm_script"))


def test_slurm_directives_come_before_the_first_command():
    lines = (LAUNCH / "slurm.sh").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    found = [(number, line.split()[1]) for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert [directive for _, directive in found] == DIRECTIVES
    assert max(number for number, _ in found) < first


def test_slurm_dry_run(shell):
    expected = (
        "srun --label --kill-on-bad-exit=0 --wait=120{} python main.py --config=c.py '--workdir=a b'\n"
        "# on SIGUSR1\nscancel --signal=TERM {}\n# then, after exit status 143\nscontrol requeue {}\n"
    )
    command = ("--dry-run", *MAIN, "--workdir=a b")
    assert shell.run("slurm.sh", *command) == (0, expected.format("", "JOBID", "JOBID"), "")
    found = shell.run(
        "slurm.sh",
        *command,
        SLURM_JOB_ID="7",
        SLURM_CPUS_PER_TASK="8",
        SLURM_GPUS_ON_NODE="4",
        SLURM_NTASKS_PER_NODE="4",
    )
    assert found == (0, expected.format(" --cpus-per-task=8 --gpu-bind=none", 7, 7), "")


@pytest.mark.parametrize("status", [0, 1, 2, 143])
def test_slurm_returns_the_status(shell, slurm, status):
    assert shell.run(slurm, *MAIN, SLURM_JOB_ID="7", STATUS=str(status)) == (status, "", "")
    assert shell.calls("srun") == [["--label", "--kill-on-bad-exit=0", "--wait=120", *MAIN]]
    assert shell.calls("scancel") == shell.calls("scontrol") == []


@pytest.mark.parametrize("after, requeued", [(143, True), (2, False), (1, False), (0, False)])
def test_slurm_requeues_what_saved_at_the_time_limit(shell, slurm, after, requeued):
    process = shell.start(slurm, *MAIN, SLURM_JOB_ID="7", AFTER=str(after))
    eventually((shell.tmp / "srun.pid").exists)
    process.send_signal(signal.SIGUSR1)
    assert finish(process) == (after, "", "")
    assert shell.calls("scancel") == [["--signal=TERM", "7"]]
    assert shell.calls("scontrol") == ([["requeue", "7"]] if requeued else [])


def test_slurm_lets_a_cancelled_job_end(shell, slurm):
    process = shell.start(slurm, *MAIN, SLURM_JOB_ID="7", AFTER="143")
    eventually((shell.tmp / "srun.pid").exists)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None  # waits for the tasks, which Slurm signals too
    os.kill(int((shell.tmp / "srun.pid").read_text()), signal.SIGTERM)
    assert finish(process) == (143, "", "")
    assert shell.calls("scancel") == shell.calls("scontrol") == []


def test_slurm_submitted_from_elsewhere(shell, slurm):
    status, _, err = shell.run(slurm, *MAIN, cwd=shell.tmp, SLURM_JOB_ID="7")
    assert status == 2 and re.fullmatch(r"error: submit from the root of the repository: [^\n]+\n", err)


# tpu_pod.sh

GCLOUD = "gcloud compute tpus tpu-vm"


@pytest.fixture
def gcloud(shell):
    """A stand-in whose only worker is this machine, with a home directory of its own."""
    shell.fake(
        "gcloud",
        """
        cd "$HOME"
        case $4 in
          scp) cp "$5" "${6#*:}" ;;
          ssh) bash -c "${7#--command=}" ;;
        esac
        """,
    )


def test_tpu_dry_runs(shell):
    def dry(*arguments, **variables):
        status, out, err = shell.run("tpu_pod.sh", "--dry-run", *arguments, **TPU, **variables)
        assert status == 0 and err in ("", "note: changes since the last commit are not sent\n")
        return out

    kind = "--accelerator-type=kind --version=image"
    assert dry("create") == f"{GCLOUD} create pod {kind} --zone=zone\n"
    assert dry("create", SPOT="1", PROJECT="p") == f"{GCLOUD} create pod {kind} --spot --zone=zone --project=p\n"
    assert dry("delete") == f"{GCLOUD} delete pod --zone=zone\n"
    ssh = f"{GCLOUD} ssh pod --worker={{}} '--command={{}}' --zone=zone\n"
    follow = 'tail -n 100 -F score_sde_jax/run.log | sed -u "s/^/$(hostname): /"'
    assert dry("logs") == ssh.format("all", follow)
    assert dry("logs", WORKER="3") == ssh.format("3", follow)
    assert dry("stop") == ssh.format("all", 'kill -TERM "$(cat score_sde_jax/run.pid)"')


def test_tpu_dry_run_of_copy_and_run(shell, clone):
    script = clone / "launch" / "tpu_pod.sh"
    status, out, _ = shell.run(script, "--dry-run", "copy", PYTHON="python3.12", **TPU)
    archive = f"{clone}/.git/score_sde_jax.tar.gz"
    apt = "sudo apt-get -y -o DPkg::Lock::Timeout=600"
    install = (
        "set -e; mkdir -p score_sde_jax; tar -xzf score_sde_jax.tar.gz -C score_sde_jax; cd score_sde_jax;"
        rf" python3.12 -c '\''import ensurepip'\'' || {{ {apt} update; {apt} install python3.12-venv; }};"
        r" python3.12 -m venv .venv; .venv/bin/pip install -c constraints.txt -e '\''.[tpu]'\''"
    )
    assert status == 0 and out.splitlines() == [
        f"git -C {clone} archive --output={archive} HEAD",
        f"{GCLOUD} scp {archive} pod:score_sde_jax.tar.gz --worker=all --zone=zone",
        f"rm {archive}",
        f"{GCLOUD} ssh pod --worker=all '--command={install}' --zone=zone",
    ]
    status, out, err = shell.run(script, "--dry-run", "run", "--", *MAIN, "--workdir=gs://b/r", **TPU)
    start = (
        'set -e; cd score_sde_jax; . .venv/bin/activate; if [ -e run.pid ] && kill -0 "$(cat run.pid)" 2>/dev/null;'
        r" then echo '\''error: a run is under way; stop it first'\'' >&2; exit 1; fi;"
        " setsid python main.py --config=c.py --workdir=gs://b/r >>run.log 2>&1 </dev/null & echo $! >run.pid"
    )
    assert (status, err) == (0, "")
    assert out == f"{GCLOUD} ssh pod --worker=all '--command={start}' --zone=zone\n"


def test_tpu_copy_sends_the_last_commit_and_installs_it(shell, clone, gcloud):
    pip = '#!/bin/bash\necho "$PWD" "$@" >"$HOME/pip.call"\n'
    shell.fake(
        "python3.11", f"[[ $2 != venv ]] || {{ mkdir -p $3/bin; echo '{pip}' >$3/bin/pip; chmod +x $3/bin/pip; }}"
    )
    status, _, err = shell.run(clone / "launch" / "tpu_pod.sh", "copy", **TPU)
    assert (status, err) == (0, "note: changes since the last commit are not sent\n")
    with tarfile.open(shell.home / "score_sde_jax.tar.gz") as archive:
        names = {member.name for member in archive if member.isfile()}
    assert names == {"pyproject.toml", *(f"launch/{path.name}" for path in LAUNCH.iterdir())}
    there = shell.home / "score_sde_jax"
    assert (there / "pyproject.toml").read_text() == "committed\n"
    assert shell.calls("python3.11") == [["-c", "import ensurepip"], ["-m", "venv", ".venv"]]
    assert (shell.home / "pip.call").read_text() == f"{there} install -c constraints.txt -e .[tpu]\n"
    assert not (clone / ".git" / "score_sde_jax.tar.gz").exists()


def test_tpu_run_outlives_its_connection_and_stops_on_request(shell, clone, gcloud, program):
    there = shell.home / "score_sde_jax"
    (there / ".venv" / "bin").mkdir(parents=True)
    (there / ".venv" / "bin" / "activate").write_text("export XLA_FLAGS=activated\n")

    def pod(*arguments):
        return shell.run(clone / "launch" / "tpu_pod.sh", *arguments, **TPU)

    words = (*program, "--process_id=0", "--workdir=a $b", "--sleep=60")
    assert pod("run", "--", *words) == (0, "", "")
    eventually(lambda: started(shell) == 1)
    pid = int((there / "run.pid").read_text())
    assert os.getsid(pid) == pid
    assert pod("run", "--", *words) == (1, "", "error: a run is under way; stop it first\n")
    assert pod("stop") == (0, "", "")
    eventually(lambda: "saved on SIGTERM" in (there / "run.log").read_text())
    log = (there / "run.log").read_text().splitlines()
    assert log[0].endswith("--process_id=0 --workdir=a $b --sleep=60")
    assert log[1:] == ["environment None None activated", "saved on SIGTERM"]


# kubernetes.sh


def manifest(out):
    return pytest.importorskip("yaml").safe_load(out)


def test_kubernetes_dry_run_is_the_manifest(shell):
    flags = ["--config.data.dir=/shared/a b", '--config.x="$(NAME)\\']
    variables = {**PODS, "WORKDIR": "/shared/run", "VOLUME_CLAIM": "claim", "CPUS_PER_POD": "32"}
    status, out, err = shell.run("kubernetes.sh", "--dry-run", *flags, MEMORY_PER_POD="128Gi", **variables)
    assert (status, err) == (0, "")
    assert out.startswith("# kubectl apply --filename=-\napiVersion: jobset.x-k8s.io/v1alpha2\nkind: JobSet\n")
    found = manifest(out)
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 300,
        "securityContext": {"fsGroup": 1000},
        "containers": [
            {
                "name": "main",
                "image": "image:1",
                "command": [
                    *("python", "main.py", "--config=c.py", "--mode=train", "--workdir=/shared/run"),
                    *("--config.data.dir=/shared/a b", '--config.x="$$(NAME)\\'),
                    *("--coordinator_address=run-workers-0-0.run:8476", "--num_processes=4"),
                    "--process_id=$(JOB_COMPLETION_INDEX)",
                ],
                "resources": {"limits": {"cpu": "32", "memory": "128Gi", "nvidia.com/gpu": 8}},
                "volumeMounts": [
                    {"name": "memory", "mountPath": "/dev/shm"},
                    {"name": "shared", "mountPath": "/shared"},
                ],
            }
        ],
        "volumes": [
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "shared", "persistentVolumeClaim": {"claimName": "claim"}},
        ],
    }
    mistake = {
        "action": "FailJob",
        "onExitCodes": {"containerName": "main", "operator": "In", "values": [2]},
        "onPodConditions": [],
    }
    job = {
        "parallelism": 4,
        "completions": 4,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [mistake]},
        "template": {"spec": pod},
    }
    assert found == {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "run"},
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {
                "maxRestarts": 100,
                "rules": [{"name": "mistake", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "replicatedJobs": [{"name": "workers", "replicas": 1, "template": {"spec": job}}],
        },
    }


def test_kubernetes_applies_what_it_prints(shell):
    shell.fake("kubectl", f"cat >{shell.tmp}/applied")
    variables = {**PODS, "GPUS_PER_POD": "0", "MAX_RESTARTS": "3"}
    _, printed, _ = shell.run("kubernetes.sh", "--dry-run", **variables)
    assert shell.run("kubernetes.sh", **variables) == (0, "", "")
    assert shell.calls("kubectl") == [["apply", "--filename=-"]]
    applied = (shell.tmp / "applied").read_text()
    assert printed == "# kubectl apply --filename=-\n" + applied
    spec = manifest(applied)["spec"]
    pod = spec["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert spec["failurePolicy"]["maxRestarts"] == 3
    assert pod["containers"][0]["resources"] == {"limits": {}}
    assert [volume["name"] for volume in pod["volumes"]] == ["memory"]


# Dockerfile and README


def test_dockerfile_installs_and_then_drops_its_rights():
    text = (LAUNCH / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line and not line.startswith("#")]
    kinds = [kind for kind, _ in steps]
    assert steps[0] == ("FROM", "python:3.11-slim")
    assert ("ARG", 'EXTRA=""') in steps
    install = next(rest for kind, rest in steps if kind == "RUN" and "pip install" in rest)
    assert '-c constraints.txt -e ".${EXTRA:+[$EXTRA]}"' in install
    assert kinds.count("USER") == 1 and dict(steps)["USER"] == "trainer"
    assert kinds.index("USER") > max(number for number, kind in enumerate(kinds) if kind in ("RUN", "COPY"))
    assert dict(steps)["ENTRYPOINT"] == '["python", "main.py"]'
    copied = {name for kind, rest in steps if kind == "COPY" for name in rest.split()[:-1]}
    admitted = (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in admitted and {line[1:] for line in admitted if line.startswith("!")} == copied
    assert copied >= {"main.py", "configs", "score_sde_jax", "pyproject.toml", "constraints.txt", "README.md"}
    assert all((ROOT / name).exists() for name in copied)


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
    """No host, registry, project, bucket or zone: those are the user's."""
    interfaces = {"jobset.x-k8s.io", "nvidia.com"}
    for path in LAUNCH.iterdir():
        text = path.read_text()
        hosts = set(re.findall(r"\b(?:[a-z0-9-]+\.)+(?:io|com|org|net|dev|cloud)\b", text))
        assert hosts <= interfaces, path
        assert not re.search(r"\b(?:us|europe|asia)-[a-z]+\d", text), path
        assert set(re.findall(r"gs://\w+", text)) <= {"gs://BUCKET"}, path
