"""Finds the image files of a folder or zip file, and counts what it leaves out."""

import collections
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from score_sde_jax import paths
from score_sde_jax.errors import UserError

MAX_FILE_BYTES = 2**30
"""Largest file that is read, in bytes; an archive declares the sizes of its files before they are unpacked."""

SYSTEM = {"__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found", "Thumbs.db", "desktop.ini"}
"""Names of files and folders of operating systems and file servers."""

UNSAFE = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "PDF"}
"""Formats for which Pillow starts another program, or needs one."""

KEY = "--config.data.dir"
LABELS = "dataset.json"
"""File of labels in the format of StyleGAN and EDM: {"labels": [[name, class], ...]}."""

BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
"""First bytes of JPEG, PNG, GIF, WebP, BMP and TIFF, for files without a suffix."""


class Files(NamedTuple):
    """The image files of a folder or zip file.

    Attributes:
        root: path of the folder or zip file.
        names: sorted paths in it.
        open: function from a name to the path or content of the file.
        left_out: number of other files by reason, such as ".txt" or "hidden".
        read_labels: function that returns the content of the file LABELS directly in `root`; None if there is none.
    """

    root: Path
    names: list[PurePosixPath]
    open: Callable[[PurePosixPath], Path | io.BytesIO]
    left_out: collections.Counter[str]
    read_labels: Callable[[], bytes | None]

    def without(self, reasons: dict[PurePosixPath, str]) -> "Files":
        """Return the files without some of them.

        Args:
            reasons: why a file is left out, by its name.
        """
        names = [name for name in self.names if name not in reasons]
        return self._replace(names=names, left_out=self.left_out + collections.Counter(reasons.values()))

    def describe_left_out(self) -> str:
        """Return the numbers of files that are left out, with their reasons; empty if there are none."""
        return ", ".join(f"{number:,} {reason}" for reason, number in sorted(self.left_out.items()))


def find(dir: str | None) -> Files:
    """Return the image files of a folder, every real folder once, or of a zip file.

    A file is an image if Pillow knows its suffix, or if it has none and begins as an image. Hidden files, files of the
    operating system, pipes and devices are left out.

    Args:
        dir: path of the folder or zip file.

    Raises:
        UserError: there is no such folder or zip file, the file is damaged, or no image is in it.
    """
    if not dir:
        raise UserError(f"{KEY} is missing: expected a folder or zip file of images")
    root = paths.expanded(dir, KEY)
    kind = paths.kind(root, KEY, dir)
    if kind == "missing":
        raise UserError(f"{KEY}={dir}: no such folder or zip file")
    if kind == "pipe or device":
        raise UserError(f"{KEY}={dir}: expected a folder or zip file of images, found a {kind}")
    files = _in_folder(root) if kind == "folder" else _in_zip(root, f"{KEY}={dir}")
    if not files.names:
        left_out = files.describe_left_out()
        hint = "; arrays need --config.data.name=npz" if {".npy", ".npz"} & set(files.left_out) else ""
        raise UserError(f"{KEY}={dir}: no image in it" + (f"; left out: {left_out}" if left_out else "") + hint)
    return files


def _in_folder(root: Path) -> Files:
    left_out = collections.Counter[str]()
    names = []
    for name, path in _walk(root, left_out):
        if str(name) == LABELS:
            continue
        reason = _reason(name, partial(_beginning, path))
        if reason is None and path.stat().st_size > MAX_FILE_BYTES:
            reason = _too_large()
        if reason is None:
            names.append(name)
        else:
            left_out[reason] += 1
    path = root / LABELS

    def read_labels() -> bytes | None:
        return path.read_bytes() if path.is_file() else None

    return Files(root, sorted(names), lambda name: root / name, left_out, read_labels)


def _walk(root: Path, left_out: collections.Counter[str]) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield name and path of every regular file, those behind links to folders last."""
    seen = set[tuple[int, int]]()
    folders, links = collections.deque([root]), collections.deque[Path]()
    while folders or links:
        is_link, folder = not folders, folders.popleft() if folders else links.popleft()
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            left_out["unreadable folder"] += 1
            continue
        around = is_link and root.resolve().is_relative_to(folder.resolve())  # a folder that contains this one
        if around or (status.st_dev, status.st_ino) in seen:
            left_out["link to a folder that is read already or lies around this one"] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            path = Path(entry.path)
            if _is_hidden(entry.name):
                left_out["hidden"] += 1
                continue
            try:
                mode = entry.stat().st_mode
            except OSError:
                left_out["broken link"] += 1
                continue
            if stat.S_ISDIR(mode):
                (links if entry.is_symlink() else folders).append(path)
            elif stat.S_ISREG(mode):
                yield PurePosixPath(path.relative_to(root)), path
            else:
                left_out["pipe or device"] += 1


def _in_zip(root: Path, given: str) -> Files:
    if root.suffix == ".npz":
        raise UserError(f"{given}: an npz file; use --config.data.name=npz")
    try:
        archive = zipfile.ZipFile(root)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise UserError(f"{given}: {_not_a_zip(root)}") from error
    members, left_out = dict[PurePosixPath, zipfile.ZipInfo](), collections.Counter[str]()
    for member in archive.infolist():
        name = PurePosixPath(member.filename.replace("\\", "/"))  # Windows programs write backslashes
        if not member.filename:  # zipfile cuts a name at a null character
            left_out["without a name"] += 1
            continue
        if member.is_dir() or member.filename.endswith("\\") or str(name) == LABELS:
            continue
        reason = "hidden" if any(map(_is_hidden, name.parts)) else None
        if reason is None and member.flag_bits & 1:
            reason = "encrypted"
        if reason is None and member.file_size > MAX_FILE_BYTES:
            reason = _too_large()
        reason = reason or _reason(name, partial(_packed_beginning, archive, member))
        if reason is None and name in members:
            reason = "of a name that occurs twice"
        if reason is None:
            members[name] = member
        else:
            left_out[reason] += 1

    def read_labels() -> bytes | None:
        if LABELS not in archive.namelist():
            return None
        if archive.getinfo(LABELS).file_size > MAX_FILE_BYTES:
            raise UserError(f"{given}: {LABELS} in it is {_too_large()}")
        return archive.read(LABELS)

    return Files(root, sorted(members), lambda name: io.BytesIO(archive.read(members[name])), left_out, read_labels)


def _not_a_zip(path: Path) -> str:
    with path.open("rb") as file:
        beginning = file.read(4)
    if beginning.startswith(b"PK"):
        return "an incomplete or damaged zip file; copy it again"
    if tarfile.is_tarfile(path):
        return "a tar file; unpack it, and give the folder"
    if path.suffix.lower() in suffixes():
        return "one image file; put it into a folder, and give the folder"
    if path.suffix == ".npy":
        return "an npy file; save it with np.savez(FILE, images=ARRAY), and use --config.data.name=npz"
    return "expected a folder or zip file of images"


def _reason(name: PurePosixPath, beginning: Callable[[], bytes]) -> str | None:
    """Return why a file is no image; None if it may be one."""
    if name.suffix.lower() in suffixes():
        return None
    if not name.suffix:
        return None if beginning().startswith(BEGINNINGS) else "without suffix"
    return name.suffix.lower()


def suffixes() -> set[str]:
    """Return the suffixes of the formats that Pillow decodes without another program, in lower case."""
    known = Image.registered_extensions()
    return {suffix for suffix, format in known.items() if format in Image.OPEN and format not in UNSAFE}


def _is_hidden(name: str) -> bool:
    return (name.startswith(".") and name != "..") or name in SYSTEM


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError:
        return b""


def _packed_beginning(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(member) as file:
            return file.read(16)
    except Exception:  # zlib and zipfile raise many types for damaged members
        return b""


def _too_large() -> str:
    return f"larger than {MAX_FILE_BYTES // 2**30} GiB"


def counted(names: Iterable[str], numbers: Iterable[int], most: int = 10) -> str:
    """Return names with numbers, such as "cats 6, dogs 8", at most the first `most`."""
    pairs = [f"{name} {number:,}" for name, number in zip(names, numbers, strict=True)]
    return ", ".join(pairs[:most]) + (f", and {len(pairs) - most} more" if len(pairs) > most else "")
