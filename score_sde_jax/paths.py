"""Checks of the paths that a user types, before they are opened."""

import os
import stat
from pathlib import Path
from typing import Literal

from score_sde_jax.errors import UserError

Kind = Literal["file", "folder", "missing", "pipe or device"]


def expanded(text: str, key: str) -> Path:
    """Return the path with ~ and ~user expanded.

    Args:
        text: path as typed.
        key: flag or variable that gives it, for messages.

    Raises:
        UserError: the path is empty, names no user after ~, or has a character that no file name has.
    """
    if not text:
        raise UserError(f"{key}=: is empty; give a path")
    try:
        text.encode()  # bytes that are not UTF-8 become lone surrogates, which Orbax cannot write
    except UnicodeEncodeError as error:
        raise UserError(f"{key}={printable(text)}: has bytes that are not UTF-8; use another name") from error
    if "\0" in text:
        raise UserError(f"{key}={printable(text)}: has a null character; use another name")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{key}={text}: there is no user {text.partition('/')[0]}") from error


def kind(path: Path, key: str, text: str | None = None) -> Kind:
    """Return the kind of a path, after following links; nothing is opened.

    Args:
        path: path of this machine.
        key: flag or variable that gives it, for messages.
        text: the path as typed, if it differs.

    Raises:
        UserError: the path is too long, a cycle of links, or in a folder that may not be read.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as error:
        name = printable(str(path) if text is None else text)
        raise UserError(f"{key}={name}: {os.strerror(error.errno or 0)}") from error
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "pipe or device"


def printable(text: str) -> str:
    """Return a name in characters that any terminal prints, cut if it is long."""
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return text if len(text) <= 120 else f"{text[:120]}..."
