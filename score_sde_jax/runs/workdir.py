"""The directory of a run: its resolved config, and the refusal to mix two different runs in it."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from etils import epath
from jaxtyping import PyTree
from ml_collections import ConfigDict

from score_sde_jax.errors import UserError
from score_sde_jax.runs.checkpoint import Checkpoints
from score_sde_jax.runs.reporting import is_local, write_atomically
from score_sde_jax.settings.reading import AUTO, differences, to_json

IDENTITY = ("data", "model", "sde", "parameterization")
"""Sections that make a checkpoint what it is; a run cannot go on with others."""
LOCK = ".lock"
IMAGE_SHAPE = "image_shape"
"""Key of config.json that the data decide, so that sampling needs no data."""


def locate(name: str, key: str = "--workdir") -> Path:
    """Path of a directory, on this machine or in a bucket (gs://...).

    Raises UserError, which names the flag or `key` that gives it, if nothing here can reach it.
    """
    if "://" not in name:
        return Path(name)
    try:
        path = epath.Path(name)
        path.exists()
    except KeyError as error:
        raise UserError(f"{key}={name}: nothing here knows {error}; use a path, or gs://bucket/run") from error
    except Exception as error:  # each file system raises its own
        install = "; pip install 'score-sde-jax[gcs]'" if isinstance(error, ImportError) else ""
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{key}={name}: cannot be reached ({reason}){install}") from error
    return path


def saved_config(workdir: Path) -> dict[str, Any] | None:
    """The resolved config of the run in `workdir`, or None where there is no run."""
    path = workdir / "config.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not the config of a run ({error})") from error


def adopt_automatic(config: ConfigDict, saved: dict[str, Any] | None) -> None:
    """Replace every "auto" in place by what the run in the workdir has chosen before."""
    for key, value in config.items() if saved else ():
        chosen = (saved or {}).get(key)
        if isinstance(value, ConfigDict) and isinstance(chosen, dict):
            adopt_automatic(value, chosen)
        elif value == AUTO and chosen is not None:
            with config.ignore_type():
                config[key] = chosen


def refuse_another_run(workdir: Path, config: ConfigDict, saved: dict[str, Any] | None) -> None:
    """Raise UserError if the workdir holds a run with another model or data; where the data lie does not matter."""
    if saved is None:
        return
    new = json.loads(to_json(config))
    for section in IDENTITY:
        old_section, new_section = ({k: v for k, v in c.get(section, {}).items() if k != "dir"} for c in (saved, new))
        for difference in differences(old_section, new_section, section):
            raise UserError(f"{workdir} holds another run ({difference}); choose another --workdir")


def adopt_run(workdir: Path, config: ConfigDict) -> tuple[int, ...]:
    """Make the config that of the trained run in `workdir`, in place; the shape of its images.

    Raises UserError where there is no run, or one with another model or data.
    """
    saved = saved_config(workdir)
    if saved is None:
        raise _untrained(workdir)
    adopt_automatic(config, saved)
    refuse_another_run(workdir, config, saved)
    return tuple(saved[IMAGE_SHAPE])


def restore(workdir: Path, checkpoint: int | Literal["best"] | None, abstract: PyTree) -> tuple[int, PyTree]:
    """Step and state of the checkpoint of that step, of the best one, or of the latest.

    `abstract` has the state's shapes and placement. Raises UserError where there is no such checkpoint.
    """
    folder = workdir / ("best" if checkpoint == "best" else "checkpoints")
    if not folder.is_dir():
        if checkpoint == "best":
            raise UserError(f"{workdir} keeps no best checkpoint; train with --config.checkpoint.keep_best=True")
        raise _untrained(workdir)
    checkpoints = Checkpoints(folder)
    if isinstance(checkpoint, int):
        return checkpoint, checkpoints.restore(checkpoint, abstract)
    restored = checkpoints.restore_latest(abstract)
    if restored is None:
        raise _untrained(workdir)
    return restored


def _untrained(workdir: Path) -> UserError:
    return UserError(f"{workdir} holds no checkpoint; train first, with --mode=train")


@contextlib.contextmanager
def claimed(workdir: Path) -> Iterator[None]:
    """Hold the workdir while a run writes to it; UserError where another run holds it or it cannot be written.

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


def record(workdir: Path, config: ConfigDict, image_shape: tuple[int, ...]) -> None:
    """Save the resolved config in the workdir, with the shape of an image; UserError where it cannot be written."""
    resolved = json.loads(to_json(config)) | {IMAGE_SHAPE: image_shape}
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(workdir / "config.json", json.dumps(resolved, indent=2) + "\n")
    except OSError as error:
        raise _unwritable(workdir, error) from error


def _unwritable(workdir: Path, error: OSError) -> UserError:
    return UserError(f"--workdir={workdir}: cannot be written ({os.strerror(error.errno or 0)})")
