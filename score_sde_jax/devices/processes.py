"""The processes of one run: their connection, and the one that writes files."""

import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from typing import Literal, get_args

import jax

from score_sde_jax.devices.signals import tell
from score_sde_jax.errors import UserError

Distributed = Literal["auto", "on", "off"]
CONNECT_SECONDS = 300
"""Seconds that a process waits for the others."""
MAX_PROCESSES = 2**16
"""More processes than any run has."""
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
    missing = _check_flags(distributed, coordinator_address, num_processes, process_id)
    several = not missing or in_slurm_step(os.environ)
    on_tpu = importlib.util.find_spec("libtpu") is not None
    if distributed == "off" or (distributed == "auto" and not several and not on_tpu):
        _check_backend()
        return
    if process_id:
        tell(f"Process {process_id} waits up to {CONNECT_SECONDS} s for process 0 at {coordinator_address}")
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            cluster_detection_method=None if missing else "deactivate",
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            initialization_timeout=CONNECT_SECONDS,
            coordinator_bind_address=_loopback(coordinator_address),
        )
    except Exception as error:  # JAX and its extension raise many types for values that they do not expect
        if distributed == "auto" and not several:
            return  # a single TPU machine
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"--distributed={distributed}: the processes cannot connect ({reason})") from error
    _check_backend()
    if jax.process_count() > 1 and jax.default_backend() == "cpu":
        # A CPU program from the cache runs its collectives in no fixed order (jaxlib 0.10), so processes that run them
        # in different orders would wait for each other forever.
        jax.config.update("jax_enable_compilation_cache", False)


def _check_flags(
    distributed: str, coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> list[str]:
    """Return the flags of the cluster that are missing, all or none; UserError for flags that contradict each other."""
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
    if num_processes is not None and not 1 <= num_processes < MAX_PROCESSES:
        raise UserError(f"--num_processes={num_processes}: must be >= 1 and < {MAX_PROCESSES:,}")
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise UserError(f"--process_id={process_id}: must be >= 0 and < --num_processes={num_processes}")
    if coordinator_address is not None:
        _check_address(coordinator_address)
    return missing


def _check_address(address: str) -> None:
    """Raise UserError if an address is not HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) < 2**16:
        raise UserError(f"--coordinator_address={address}: expected HOST:PORT with a port >= 1 and < 65,536")


def _loopback(address: str | None) -> str | None:
    """Return the address if only this machine reaches it, so that process 0 listens there; None for all interfaces."""
    host = (address or "").rpartition(":")[0].strip("[]")
    return address if host in ("localhost", "::1") or host.startswith("127.") else None


def _check_backend() -> None:
    """Raise UserError if JAX cannot start on the devices that JAX_PLATFORMS names."""
    try:
        jax.devices()
    except RuntimeError as error:
        platforms, reason = os.environ.get("JAX_PLATFORMS", ""), str(error).strip().splitlines()[0][:200]
        raise UserError(f"JAX_PLATFORMS={platforms}: JAX cannot start ({reason})") from error


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
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream that is closed or missing
            stream.flush()
    if status == 1:
        os._exit(status)
    sys.exit(status)
