"""Connection of processes, and signals that stop them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from patience import time_limit

from score_sde_jax.devices import processes, signals
from score_sde_jax.errors import StoppedError, UserError

COORDINATOR = dict(coordinator_address="localhost:1", num_processes=2, process_id=0)


@pytest.fixture
def initialized(monkeypatch):
    """The calls of jax.distributed.initialize, which is replaced by a function that does nothing; no TPU."""
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
    call = tuple(COORDINATOR.values()) if "coordinator_address" in arguments else (None, None, None)
    assert initialized == ([call] if started else [])


@pytest.mark.parametrize(
    ("address", "bound"),
    [("localhost:9", "localhost:9"), ("127.0.0.1:9", "127.0.0.1:9"), ("[::1]:9", "[::1]:9"), ("10.0.0.1:9", None)],
)
def test_process_0_of_one_machine_listens_to_that_machine_alone(monkeypatch, address, bound):
    options = {}
    monkeypatch.setattr(processes.jax.distributed, "initialize", lambda *_, **given: options.update(given))
    processes.start(**COORDINATOR | dict(coordinator_address=address))
    assert options["coordinator_bind_address"] == bound
    assert options["initialization_timeout"] == processes.CONNECT_SECONDS


def test_a_process_says_whom_it_waits_for(initialized, capfd):
    processes.start(**COORDINATOR | dict(process_id=1))
    assert capfd.readouterr().err == "Process 1 waits up to 300 s for process 0 at localhost:1\n"


def test_a_single_tpu_machine_is_not_connected(initialized, monkeypatch):
    def no_cluster(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(processes.jax.distributed, "initialize", no_cluster)
    with pytest.raises(UserError, match=r"--distributed=on: the processes cannot connect \(coordinator"):
        processes.start("on")
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: name == "libtpu")
    processes.start("auto")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (dict(distributed="maybe"), "--distributed=maybe: choose one of auto, on, off"),
        (dict(num_processes=2), "--coordinator_address, --process_id missing: set all of"),
        (COORDINATOR | dict(distributed="off"), "--distributed=off: contradicts"),
        (COORDINATOR | dict(process_id=2), "--process_id=2: must be >= 0 and < --num_processes=2"),
        (COORDINATOR | dict(process_id=-1), "--process_id=-1: must be >= 0"),
    ],
)
def test_contradicting_flags_are_refused(initialized, arguments, part):
    with pytest.raises(UserError, match=part.replace("-", r"\-")):
        processes.start(**arguments)
    assert initialized == []


def wait_for(condition):
    end = time.monotonic() + time_limit(10)
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_the_run_to_save(number, capfd):
    before = [signal.getsignal(n) for n in signals.Stop.SIGNALS]
    with signals.stopping() as stop:
        stop.patient = True
        os.kill(os.getpid(), number)
        wait_for(lambda: stop.received == number)
        error = stop.error("step 1,234")
    assert isinstance(error, StoppedError) and error.status == 128 + number
    assert "after step 1,234, which is saved" in str(error)
    assert f"{number.name}: saving a checkpoint" in capfd.readouterr().err
    assert [signal.getsignal(n) for n in signals.Stop.SIGNALS] == before


SLEEPER = """
import time
from score_sde_jax.devices import processes, signals
with signals.stopping() as stop:
    stop.patient = {patient}
    print("ready", flush=True)
    time.sleep({seconds})
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("patient", [True, False])
def test_the_second_signal_exits_and_so_does_the_first_with_nothing_to_save(number, patient):
    """The main thread sleeps, so no Python handler of its own runs."""
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
    assert child.returncode == 128 + number and "exiting now" in err and "Traceback" not in err


def test_another_thread_watches_nothing():
    received = []

    def inside():
        with signals.stopping() as stop:
            received.append(stop.received)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert received == [None]


def test_a_single_process_is_the_first():
    assert processes.is_first()
