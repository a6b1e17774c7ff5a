"""The processes of one run: how they find each other, which of them writes, and how a signal stops all of them."""

import contextlib
import importlib.util
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import jax

from score_sde_jax.errors import StoppedError, UserError

Distributed = Literal["auto", "on", "off"]
HEARTBEAT_SECONDS = 30
"""A process that is not heard of for this long is dead, and the others end."""


def start(
    distributed: str = "auto",
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Connect the processes of a run (`jax.distributed`); before anything else asks for a device.

    "auto" connects where the coordinator is given, under SLURM with several tasks, and on TPU machines; "on" insists;
    "off" never does. Raises UserError for flags that do not fit and where the others are not found.
    """
    given = {
        "--coordinator_address": coordinator_address,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    if distributed not in get_args(Distributed):
        raise UserError(f"--distributed={distributed}: choose one of {', '.join(get_args(Distributed))}")
    missing = [flag for flag, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise UserError(f"{', '.join(missing)} missing: give all of {', '.join(given)}, or none")
    if distributed == "off" and not missing:
        raise UserError("--distributed=off contradicts --coordinator_address; leave one of them out")
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise UserError(f"--process_id={process_id}: from 0 to --num_processes - 1 = {num_processes - 1}")
    several = not missing or in_slurm_step(os.environ)
    on_tpu = importlib.util.find_spec("libtpu") is not None
    if distributed == "off" or (distributed == "auto" and not several and not on_tpu):
        return
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            cluster_detection_method=None if missing else "deactivate",
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        if distributed == "auto" and not several:
            return  # a TPU machine of its own
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--distributed={distributed}: the processes do not find each other ({reason})") from error
    if jax.process_count() > 1 and jax.default_backend() == "cpu":
        # A program for CPUs that is read back from the cache has lost the order of its collectives (jaxlib 0.10): its
        # processes wait for each other in different ones for ever.
        jax.config.update("jax_enable_compilation_cache", False)


def in_slurm_step(environment: Mapping[str, str]) -> bool:
    """Whether `srun` started this process as one of several."""
    return "SLURM_STEP_NODELIST" in environment and int(environment.get("SLURM_NTASKS", "1")) > 1


def is_first() -> bool:
    """Whether this process writes logs and pictures and talks."""
    return jax.process_index() == 0


def index() -> int:
    """Number of this process, from 0."""
    return jax.process_index()


def count() -> int:
    """How many processes there are."""
    return jax.process_count()


def wait_for_all(name: str) -> None:
    """Wait until every process has come to the place of this name."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def finish(status: int) -> None:
    """End with this status; after a fault at once, without waiting for processes that may never answer, or for threads
    of a save that has failed, whose late callbacks print tracebacks.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if status == 1:
        os._exit(status)
    sys.exit(status)


class Stop:
    """SIGTERM and SIGINT of this process: the first asks the run to save and end, the second ends it at once.

    They are read by a thread of its own, since Python's handlers wait while the main thread compiles or waits for a
    device. `patient` says that there is something to save; without it the first signal ends the process at once.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received: int | None = None
        self.patient = False

    def watch(self, reader: socket.socket) -> None:
        """Read signals from the socket until it is closed."""
        while data := reader.recv(16):
            for number in data:
                if number in self.SIGNALS:
                    self._signalled(number)

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        if not self.patient or self.received is not None:
            again = "again; " if self.received is not None else ""
            print(f"{again}{name}: ended at once; the same command goes on from the last checkpoint", file=sys.stderr)
            sys.stderr.flush()
            os._exit(128 + number)
        self.received = number
        print(f"{name}: saving, then ending; once more ends at once", file=sys.stderr, flush=True)

    def error(self, step: int) -> StoppedError:
        """What the run ends with after it has saved its state."""
        number = self.received or signal.SIGTERM  # another process's signal reaches this one as a vote
        name = signal.Signals(number).name
        return StoppedError(
            f"stopped by {name} after step {step:,}, which is saved; the same command goes on from there", number
        )


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Watch for signals; what they did before is put back at the end. Outside the main thread nothing is watched."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in Stop.SIGNALS}
    previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=stop.watch, args=(reader,), daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        writer.close()
        watcher.join()
        reader.close()
