"""Files of a run: written whole, and read whatever an editor, a kill or a full disk made of them."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from score_sde_jax.errors import UserError, file_error

DAMAGED = ".damaged"
"""Suffix of the name of what is kept aside because it cannot be read."""


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
    if not is_local(path):  # an object of a bucket appears whole
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
        what: what the file is, for the message.

    Raises:
        UserError: the file cannot be read, or holds no JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise file_error(error, path) from error
    except (ValueError, RecursionError) as error:  # of JSON, and of UTF-8
        raise UserError(f"{path}: not {what} ({str(error)[:200]})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: not {what} (no JSON object)")
    return value


def read_rows(path: Path, is_row: Callable[[Any], bool]) -> tuple[list[dict[str, Any]], int]:
    """Return the objects in a file of one JSON object a line, and the number of lines that are none.

    A last line without its end is not counted, since a kill may cut it short.

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


def set_aside(path: Path, why: str) -> Path:
    """Rename a file or folder that cannot be read, with a warning; return its new path.

    Args:
        path: what is renamed.
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
