"""How processes find each other and how signals end them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from patience import time_limit

from score_sde_jax.devices import processes
from score_sde_jax.errors import StoppedError, UserError

COORDINATOR = dict(coordinator_address="localhost:1", num_processes=2, process_id=0)


@pytest.fixture
def initialized(monkeypatch):
    """Calls of jax.distributed.initialize, which does nothing; no TPU."""
    calls = []
    monkeypatch.setattr(processes.jax.distributed, "initialize", lambda *args, **_: calls.append(args))
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return calls


@pytest.mark.parametrize(
    ("arguments", "environment", "started"),
    [
        ({}, {}, False),
        (dict(distributed="off"), dict(SLURM_STEP_NODELIST="a", SLURM_NTASKS="4"), False),
        ({}, dict(SLURM_JOB_ID="1"), False),  # sbatch without srun
        ({}, dict(SLURM_STEP_NODELIST="a", SLURM_NTASKS="1"), False),
        ({}, dict(SLURM_STEP_NODELIST="a", SLURM_NTASKS="4"), True),
        (dict(distributed="on"), {}, True),
        (COORDINATOR, {}, True),
    ],
)
def test_when_processes_are_connected(initialized, monkeypatch, arguments, environment, started):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes.start(**arguments)
    given = tuple(COORDINATOR.values()) if "coordinator_address" in arguments else (None, None, None)
    assert initialized == ([given] if started else [])


def test_a_tpu_machine_of_its_own(initialized, monkeypatch):
    def no_cluster(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(processes.jax.distributed, "initialize", no_cluster)
    with pytest.raises(UserError, match=r"--distributed=on: the processes do not find each other \(coordinator"):
        processes.start("on")
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: name == "libtpu")
    processes.start("auto")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (dict(distributed="maybe"), "--distributed=maybe: choose one of auto, on, off"),
        (dict(num_processes=2), "--coordinator_address, --process_id missing: give all of"),
        (COORDINATOR | dict(distributed="off"), "--distributed=off contradicts"),
        (COORDINATOR | dict(process_id=2), "--process_id=2: from 0 to --num_processes - 1 = 1"),
        (COORDINATOR | dict(process_id=-1), "--process_id=-1: from 0"),
    ],
)
def test_flags_that_do_not_fit(initialized, arguments, part):
    with pytest.raises(UserError, match=part.replace("-", r"\-")):
        processes.start(**arguments)
    assert initialized == []


def wait_for(condition):
    end = time.monotonic() + time_limit(10)
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks(number, capfd):
    before = [signal.getsignal(n) for n in processes.Stop.SIGNALS]
    with processes.stopping() as stop:
        stop.patient = True
        os.kill(os.getpid(), number)
        wait_for(lambda: stop.received == number)
        error = stop.error(1234)
    assert isinstance(error, StoppedError) and error.status == 128 + number
    assert "after step 1,234, which is saved" in str(error)
    assert f"{number.name}: saving, then ending" in capfd.readouterr().err
    assert [signal.getsignal(n) for n in processes.Stop.SIGNALS] == before


SLEEPER = """
import time
from score_sde_jax.devices import processes
with processes.stopping() as stop:
    stop.patient = {patient}
    print("ready", flush=True)
    time.sleep({seconds})
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("patient", [True, False])
def test_the_second_signal_ends_at_once_and_so_does_the_first_with_nothing_to_save(number, patient):
    """While the main thread sleeps: no Python handler of its own would run."""
    child = subprocess.Popen(
        [sys.executable, "-c", SLEEPER.format(patient=patient, seconds=time_limit(10))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    child.send_signal(number)
    if patient:
        assert child.stderr.readline().startswith(f"{number.name}: saving")
        assert child.poll() is None
        child.send_signal(number)
    _, err = child.communicate(timeout=time_limit(10))
    assert child.returncode == 128 + number and "ended at once" in err and "Traceback" not in err


def test_another_thread_watches_nothing():
    found = []

    def inside():
        with processes.stopping() as stop:
            found.append(stop.received)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [None]


def test_one_process_is_the_first():
    assert processes.is_first()
