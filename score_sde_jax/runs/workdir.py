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

from score_sde_jax import paths
from score_sde_jax.data import Dataset
from score_sde_jax.errors import RunError, UserError, file_error
from score_sde_jax.runs.checkpoint import Checkpoints
from score_sde_jax.runs.records import is_local, read_object, write_atomically
from score_sde_jax.settings import Settings, adopt, automatic, from_saved, plain
from score_sde_jax.settings.identity import another_run

LOCK = ".lock"
CONFIG = "config.json"
IMAGE_SHAPE = "image_shape"
"""Key of config.json with the shape of the training images, so that sampling needs no data."""
CLASS_NAMES = "class_names"
"""Key of config.json with the names of the classes, in order."""
NUM_IMAGES = "num_images"
"""Key of config.json with the number of training images."""


def locate(name: str, key: str = "--workdir") -> Path:
    """Return the path of a directory on this machine or in a bucket.

    Args:
        name: path or gs:// address.
        key: flag that gives it, for messages.

    Raises:
        UserError: the scheme is unsupported, or the bucket cannot be reached.
    """
    if "://" not in name:
        path = paths.expanded(name, key)
        if paths.kind(path, key, name) in ("file", "pipe or device"):
            raise UserError(f"{key}={name}: is no directory; choose another")
        return path
    try:
        bucket = epath.Path(name)
        bucket.exists()
    except KeyError as error:
        raise UserError(f"{key}={name}: unsupported scheme; use a path, or gs://bucket/run") from error
    except Exception as error:  # each file system raises other types
        install = "; pip install gcsfs" if isinstance(error, ImportError) else ""
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{key}={name}: cannot be reached ({reason}){install}") from error
    return bucket


def saved_config(workdir: Path) -> dict[str, Any] | None:
    """Return the config.json of the run in `workdir`; None if there is no run."""
    path = workdir / CONFIG
    try:
        if not path.exists():
            return None
    except OSError as error:
        raise file_error(error, f"--workdir={workdir}") from error
    saved = read_object(path, "the config of a run")
    shape = saved.get(IMAGE_SHAPE)
    if not isinstance(shape, list) or not shape or not all(type(size) is int and 0 < size < 2**20 for size in shape):
        raise UserError(f"{path}: not the config of a run (the {IMAGE_SHAPE} is missing)")
    return saved


def saved_settings(workdir: Path, assignments: Sequence[str] = ()) -> Settings | None:
    """Return the settings of the run in `workdir` with overrides applied; None if there is no run."""
    saved = saved_config(workdir)
    if saved is None:
        return None
    try:
        from_saved(saved)
    except UserError as error:  # it names the key as a flag, but the file is wrong
        raise UserError(f"{workdir / CONFIG}: {str(error).removeprefix('--config.')}") from error
    return from_saved(saved, assignments)


def adopt_run(workdir: Path, settings: Settings) -> tuple[Settings, tuple[int, ...]]:
    """Return the settings with the run's values for "auto", and the shape of its images.

    Raises:
        UserError: there is no run, or one with another model or data.
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
            f"--workdir, leave out what sets {path}, or leave out --config to use the saved settings"
        )


def restore(workdir: Path, checkpoint: int | Literal["best"] | None, abstract: PyTree) -> tuple[int, PyTree]:
    """Return step and some entries of the state of a checkpoint.

    Args:
        workdir: directory of the run.
        checkpoint: its step, or "best"; None for the latest readable one.
        abstract: shapes and placement of the entries, by name.

    Raises:
        UserError: there is no such checkpoint.
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

    A run would treat checkpoints that another run deletes as corrupted.
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
def claimed(directory: Path, given: str | None = None) -> Iterator[None]:
    """Lock a directory while a process writes to it.

    The lock is the operating system's, so it ends with the process that holds it, whatever ends that. A bucket has
    none.

    Args:
        directory: the directory, which is made.
        given: flag and value that give it, for messages.

    Raises:
        UserError: another process holds the lock, or the directory cannot be written.
        RunError: the disk is full or fails.
    """
    if not is_local(directory):
        yield
        return
    import fcntl

    given = given or f"--workdir={directory}"
    with contextlib.ExitStack() as opened:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context((directory / LOCK).open("a+"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(f"{given}: another run writes there ({file.read().strip()})") from error
        except OSError as error:
            raise _unwritable(given, error) from error
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        except OSError as error:
            raise _unwritable(given, error) from error
        yield


def record(workdir: Path, settings: Settings, data: Dataset) -> None:
    """Save settings, image shape, number of training images and names of the classes in the workdir."""
    about = {IMAGE_SHAPE: data.image_shape, NUM_IMAGES: len(data), CLASS_NAMES: data.class_names}
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir / CONFIG, json.dumps(plain(settings) | about, indent=2) + "\n")


def refuse_other_classes(workdir: Path, data: Dataset) -> None:
    """Raise UserError if the classes of a run have other names or another order now."""
    before = (saved_config(workdir) or {}).get(CLASS_NAMES) or []
    for number, (old, new) in enumerate(zip(before, data.class_names, strict=False)):
        if old != new:
            raise UserError(
                f"--workdir={workdir}: class {number} of the run was {old}, in {data.name} it is {new}; use another "
                "--workdir, or restore the names of the folders"
            )


def _unwritable(given: str, error: OSError) -> UserError | RunError:
    return file_error(error, f"{given}: cannot be written")
