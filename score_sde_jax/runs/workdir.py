"""The workdir of a run: settings, lock and checkpoints; a second, different run is refused."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from etils import epath
from jaxtyping import PyTree

from score_sde_jax.errors import UserError
from score_sde_jax.runs.checkpoint import Checkpoints
from score_sde_jax.runs.reporting import is_local, write_atomically
from score_sde_jax.settings import Settings, adopt, automatic, from_saved, plain
from score_sde_jax.settings.identity import another_run

LOCK = ".lock"
CONFIG = "config.json"
IMAGE_SHAPE = "image_shape"
"""Key of config.json with the shape of the training images, so that sampling needs no data."""


def locate(name: str, key: str = "--workdir") -> Path:
    """Return the path of a directory on this machine or in a bucket.

    Args:
        name: Path or gs:// address.
        key: Flag that gives it, for messages.

    Raises:
        UserError: The scheme is unsupported, or the bucket cannot be reached.
    """
    if "://" not in name:
        return Path(name)
    try:
        path = epath.Path(name)
        path.exists()
    except KeyError as error:
        raise UserError(f"{key}={name}: unsupported scheme; use a path, or gs://bucket/run") from error
    except Exception as error:  # each file system raises its own
        install = "; pip install gcsfs" if isinstance(error, ImportError) else ""
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{key}={name}: cannot be reached ({reason}){install}") from error
    return path


def saved_config(workdir: Path) -> dict[str, Any] | None:
    """Return the config.json of the run in `workdir`; None if there is no run."""
    path = workdir / CONFIG
    if not path.exists():
        return None
    try:
        saved = json.loads(path.read_text())
    except ValueError as error:  # of JSON, and of UTF-8
        raise UserError(f"{path}: not the config of a run ({error})") from error
    shape = saved.get(IMAGE_SHAPE) if isinstance(saved, dict) else None
    if not isinstance(shape, list) or not shape or not all(type(size) is int and size > 0 for size in shape):
        raise UserError(f"{path}: not the config of a run (the {IMAGE_SHAPE} is missing)")
    return saved


def saved_settings(workdir: Path, assignments: Sequence[str] = ()) -> Settings | None:
    """Return the settings of the run in `workdir` with overrides applied; None if there is no run."""
    saved = saved_config(workdir)
    return None if saved is None else from_saved(saved, assignments)


def adopt_run(workdir: Path, settings: Settings) -> tuple[Settings, tuple[int, ...]]:
    """Return the settings with the run's values for "auto", and the shape of its images.

    Raises:
        UserError: There is no run, or one with another model or data.
    """
    saved = saved_config(workdir)
    if saved is None:
        raise _untrained(workdir)
    settings = adopt(settings, saved)
    if open_keys := automatic(settings):
        raise UserError(f"{workdir / CONFIG}: has no value for {open_keys[0]}, which is auto; give one")
    refuse_another_run(workdir, settings)
    return settings, tuple(saved[IMAGE_SHAPE])


def refuse_another_run(workdir: Path, settings: Settings, *, training: bool = False) -> None:
    """Raise UserError if the workdir holds a run with another model or data, or in training with another seed.

    The directory of the data may differ.
    """
    saved = saved_settings(workdir)
    for path, there, here in another_run(settings, saved, training=training) if saved else ():
        raise UserError(
            f"--workdir={workdir}: the saved run has {path}={there}, these settings have {here}; use another "
            f"--workdir, or leave out what sets {path}"
        )


def restore(workdir: Path, checkpoint: int | Literal["best"] | None, abstract: PyTree) -> tuple[int, PyTree]:
    """Return step and some entries of the state of a checkpoint.

    Args:
        workdir: Directory of the run.
        checkpoint: Its step, or "best"; None for the latest readable one.
        abstract: Shapes and placement of the entries, by name.

    Raises:
        UserError: There is no such checkpoint.
    """
    folder = workdir / ("best" if checkpoint == "best" else "checkpoints")
    if not folder.is_dir():
        if checkpoint == "best":
            raise UserError(
                f"--checkpoint=best: {workdir} keeps no best checkpoint; train with --config.checkpoint.keep_best=True"
            )
        raise _untrained(workdir)
    checkpoints = Checkpoints(folder)
    if isinstance(checkpoint, int):
        return checkpoint, checkpoints.restore(checkpoint, abstract, whole=False)
    restored = checkpoints.restore_latest(abstract, whole=False)
    if restored is None:
        raise _untrained(workdir)
    return restored


def _untrained(workdir: Path) -> UserError:
    return UserError(f"--workdir={workdir}: holds no checkpoint; train first, with --mode=train")


def refuse_claimed(workdir: Path) -> None:
    """Raise UserError if another run holds the workdir; writes nothing.

    A run that another one deletes checkpoints under would take them for corrupted.
    """
    if not is_local(workdir) or not (workdir / LOCK).exists():
        return
    import fcntl

    with (workdir / LOCK).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"--workdir={workdir}: another run writes there ({file.read().strip()})") from error


@contextlib.contextmanager
def claimed(workdir: Path) -> Iterator[None]:
    """Lock the workdir while a run writes to it; UserError if another run holds the lock or the workdir is read-only.

    The lock is the operating system's, so it ends with the process that holds it, whatever ends that. A bucket has
    none.
    """
    if not is_local(workdir):
        yield
        return
    import fcntl

    with contextlib.ExitStack() as opened:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context((workdir / LOCK).open("a+"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(f"--workdir={workdir}: another run writes there ({file.read().strip()})") from error
        except OSError as error:
            raise _unwritable(workdir, error) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def record(workdir: Path, settings: Settings, image_shape: tuple[int, ...]) -> None:
    """Save settings and image shape in the workdir; UserError if it cannot be written."""
    resolved = plain(settings) | {IMAGE_SHAPE: image_shape}
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(workdir / CONFIG, json.dumps(resolved, indent=2) + "\n")
    except OSError as error:
        raise _unwritable(workdir, error) from error


def _unwritable(workdir: Path, error: OSError) -> UserError:
    return UserError(f"--workdir={workdir}: cannot be written ({os.strerror(error.errno or 0)})")
