"""Atomic writes of the files of a run, and reads that detect corrupted files."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from score_sde_jax.errors import UserError, file_error

DAMAGED = ".damaged"
"""Suffix of the name of a quarantined file."""


def is_local(path: Path) -> bool:
    """Return whether a path is in the file system of this machine, and not in a bucket."""
    return "://" not in str(path)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file atomically: a reader sees the old content or the new, also after a kill.

    Raises:
        UserError: the file may not be written.
        RunError: the disk is full or fails.
    """
    content = data.encode() if isinstance(data, str) else data
    if not is_local(path):  # a bucket replaces an object atomically
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise file_error(error, path) from error


def append(path: Path, line: str) -> None:
    """Append a line to a file of this machine.

    Raises:
        UserError: the file may not be written.
        RunError: the disk is full or fails.
    """
    try:
        with path.open("a") as file:
            file.write(line)
    except OSError as error:
        raise file_error(error, path) from error


def read_object(path: Path, what: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        path: the file.
        what: description of the file, for the message.

    Raises:
        UserError: the file cannot be read, or holds no JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise file_error(error, path) from error
    except (ValueError, RecursionError) as error:  # raised by JSON, and for bytes that are not UTF-8
        raise UserError(f"{path}: not {what} ({str(error)[:200]})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: not {what} (no JSON object)")
    return value


def read_rows(path: Path, is_row: Callable[[Any], bool]) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of a file with one JSON object a line, and the number of unreadable lines.

    A last line without a line end is not counted, since a kill may cut it short.

    Args:
        path: the file, which may be missing.
        is_row: whether an object is a row of this file.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise file_error(error, path) from error
    *lines, last = content.split(b"\n")
    rows, unreadable = list[dict[str, Any]](), 0
    for number, line in enumerate([*lines, last]):
        try:
            row = json.loads(line)
            known = is_row(row)
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            known = False
        if known:
            rows.append(row)
        elif number < len(lines):
            unreadable += 1
    return rows, unreadable


def quarantine(path: Path, why: str) -> Path:
    """Rename a corrupted file or folder, log a warning, and return the new path.

    Args:
        path: path of the file or folder.
        why: reason, for the warning.
    """
    aside, number = path.with_name(path.name + DAMAGED), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}{DAMAGED}{number}")
    try:
        path.rename(aside)
    except OSError as error:
        raise file_error(error, path) from error
    logging.warning("%s: %s; it is kept as %s", path, why, aside.name)
    return aside
