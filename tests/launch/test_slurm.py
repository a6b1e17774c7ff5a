"""slurm.sh against stand-ins for srun, scancel and scontrol."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from shells import LAUNCH, MAIN, eventually, finish

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
    result = [(number, line.split()[1]) for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert [directive for _, directive in result] == DIRECTIVES
    assert max(number for number, _ in result) < first


def test_slurm_dry_run(shell):
    expected = (
        "srun --label --kill-on-bad-exit=0 --wait=120{} python main.py --config=c.py '--workdir=a b'\n"
        "# on SIGUSR1\nscancel --signal=TERM {}\n# then, after exit status 143\nscontrol requeue {}\n"
    )
    command = ("--dry-run", *MAIN, "--workdir=a b")
    assert shell.run("slurm.sh", *command) == (0, expected.format("", "JOBID", "JOBID"), "")
    result = shell.run(
        "slurm.sh",
        *command,
        SLURM_JOB_ID="7",
        SLURM_CPUS_PER_TASK="8",
        SLURM_GPUS_ON_NODE="4",
        SLURM_NTASKS_PER_NODE="4",
    )
    assert result == (0, expected.format(" --cpus-per-task=8 --gpu-bind=none", 7, 7), "")


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


def test_slurm_lets_a_canceled_job_end(shell, slurm):
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
