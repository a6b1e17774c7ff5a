"""The processes of one run: their connection, the one that writes files, and signals that stop them."""

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
"""Seconds without a heartbeat after which JAX regards a process as dead and ends the others."""


def start(
    distributed: str = "auto",
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Connect the processes of a run by `jax.distributed`, before JAX initializes its devices.

    Args:
        distributed: "on", "off", or "auto", which connects if the coordinator is set, under Slurm with several tasks,
            and on TPU machines.
        coordinator_address: host:port of process 0; None detects the cluster.
        num_processes: number of processes.
        process_id: index of this process, from 0.

    Raises:
        UserError: the flags contradict each other, or the processes cannot connect.
    """
    flags = {
        "--coordinator_address": coordinator_address,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    if distributed not in get_args(Distributed):
        raise UserError(f"--distributed={distributed}: choose one of {', '.join(get_args(Distributed))}")
    missing = [flag for flag, value in flags.items() if value is None]
    if 0 < len(missing) < len(flags):
        raise UserError(f"{', '.join(missing)} missing: set all of {', '.join(flags)}, or none")
    if distributed == "off" and not missing:
        raise UserError("--distributed=off: contradicts --coordinator_address; leave one of them out")
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise UserError(f"--process_id={process_id}: must be >= 0 and < --num_processes={num_processes}")
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
            return  # a single TPU machine
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--distributed={distributed}: the processes cannot connect ({reason})") from error
    if jax.process_count() > 1 and jax.default_backend() == "cpu":
        # A CPU program from the cache runs its collectives in no fixed order (jaxlib 0.10), so processes that run them
        # in different orders would wait for each other forever.
        jax.config.update("jax_enable_compilation_cache", False)


def in_slurm_step(environment: Mapping[str, str]) -> bool:
    """Return whether `srun` started this process as one of several.

    Args:
        environment: environment variables of the process.
    """
    return "SLURM_STEP_NODELIST" in environment and int(environment.get("SLURM_NTASKS", "1")) > 1


def is_first() -> bool:
    """Return whether this process prints and writes the logs and pictures."""
    return jax.process_index() == 0


def index() -> int:
    """Return the index of this process, from 0."""
    return jax.process_index()


def count() -> int:
    """Return the number of processes."""
    return jax.process_count()


def wait_for_all(name: str) -> None:
    """Block until every process calls this function with the same name."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def exit_process(status: int) -> None:
    """Exit with a status.

    After a fault (status 1) it exits without cleanup, which could wait forever for other processes, or print the
    tracebacks of a failed save.

    Args:
        status: exit status.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if status == 1:
        os._exit(status)
    sys.exit(status)


class Stop:
    """State of SIGTERM and SIGINT: the first signal asks the run to save and exit, the second exits at once.

    A separate thread reads the signals, since Python's handlers wait while the main thread compiles or waits for a
    device.

    Attributes:
        received: first signal; None before it.
        patient: whether there is something to save; if not, the first signal exits at once.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received: int | None = None
        self.patient = False

    def watch(self, reader: socket.socket) -> None:
        """Handle the signals from a socket until it is closed.

        Args:
            reader: socket of `signal.set_wakeup_fd`, one byte per signal.
        """
        while data := reader.recv(16):
            for number in data:
                if number in self.SIGNALS:
                    self._handle(number)

    def _handle(self, number: int) -> None:
        name = signal.Signals(number).name
        if not self.patient or self.received is not None:
            print(f"{name}: exiting now; the same command resumes from the last checkpoint", file=sys.stderr)
            sys.stderr.flush()
            os._exit(128 + number)
        self.received = number
        print(f"{name}: saving a checkpoint; send again to exit now", file=sys.stderr, flush=True)

    def error(self, step: int) -> StoppedError:
        """Return the error that ends the run after it has saved its state.

        Args:
            step: step of the saved state.
        """
        number = self.received or signal.SIGTERM  # if another process was stopped, the vote has no signal number
        name = signal.Signals(number).name
        return StoppedError(
            f"stopped by {name} after step {step:,}, which is saved; the same command resumes from it", number
        )


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Watch for signals, and restore their handlers at the end; outside the main thread, watch nothing."""
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
