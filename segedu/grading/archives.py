"""What is in a folder or a zip that somebody handed in, looked at without unpacking anything.

Names and sizes are judged before a byte is read, files are read one by one into memory and only so
far as they said they would go, and nothing is ever written. A zip may lie in a zip once: a learning
platform puts what students hand in into one.

Source: APPNOTE.TXT 6.3.10, sections 4.4.4 (flags) and 4.4.5 (methods), on the format of zip files.
"""

import io
import itertools
import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

LARGEST_FILE = 100 * 2**20
LARGEST_TOTAL = 200 * 2**20
MOST_FILES = 2000
HIGHEST_RATIO = 200
SMALL = 2**20  # below this no ratio is too high
ENCRYPTED = 0x1 | 0x40
BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
LEFT_OVER = ("__MACOSX", ".ipynb_checkpoints", "__pycache__", ".git")


class Refused(Exception):  # noqa: N818 - what happens to it
    """Something handed in that is not taken; the message says why, for the student to read."""


@dataclass(frozen=True)
class File:
    """A file that was handed in.

    Attributes:
        name: Its path within what was handed in, with "/".
        size: In bytes, as promised.
        read: Its content; raises `Refused` if that is not what was promised.
    """

    name: str
    size: int
    read: Callable[[], bytes]


def in_folder(folder: Path) -> list[File]:
    """The files of a folder and of the folders in it.

    Raises:
        Refused: If there is a link, a device or a pipe, an odd name, or too much.
    """
    found = list(itertools.islice(_walk(folder, folder), MOST_FILES + 1))
    refuse_too_much(found)
    return found


def on_disk(path: Path, name: str) -> File:
    """One file on the disk.

    Raises:
        Refused: If it is no ordinary file, has an odd name or is too large.
    """
    about = path.lstat()
    refuse_name(name)
    if not stat.S_ISREG(about.st_mode):
        raise Refused(f"{shown(name)} is a {_kind(about.st_mode)}; hand in ordinary files only")
    _refuse_large(name, about.st_size)
    return File(name, about.st_size, lambda: _read_file(path, name))


def in_zip(content: bytes | Path) -> list[File]:
    """The files in a zip, given as bytes or as a file of ours.

    Raises:
        Refused: If it is none, or something in it cannot be trusted.
    """
    archive = opened(content)
    found = [member(archive, info) for info in archive.infolist() if not info.is_dir()]
    for info in archive.infolist():
        refuse_member(info)
    refuse_too_much(found)
    return found


def opened(content: bytes | Path) -> zipfile.ZipFile:
    """The zip, with its list of members read.

    Raises:
        Refused: If it is none.
    """
    if isinstance(content, bytes) and content.count(b"PK\x01\x02") > 4 * MOST_FILES:
        raise Refused(f"the zip has more files than the {MOST_FILES} that are looked at")
    try:
        return zipfile.ZipFile(io.BytesIO(content) if isinstance(content, bytes) else content)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        raise Refused("the zip cannot be read: cut off, or no zip at all") from None


def member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str = "") -> File:
    """A member of a zip, to be judged with `refuse_member` before it is read."""
    return File(name or info.orig_filename, info.file_size, lambda: _read_member(archive, info))


def refuse_member(info: zipfile.ZipInfo) -> None:
    """Refuse a member for its name, kind, method or size.

    Raises:
        Refused: It says why.
    """
    name, mode = info.orig_filename, info.external_attr >> 16
    refuse_name(name)
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Refused(f"{shown(name)} is a {_kind(mode)}; hand in ordinary files only")
    if info.flag_bits & ENCRYPTED:
        raise Refused(f"{shown(name)} is encrypted; hand in a zip without a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(f"{shown(name)} is packed in an unusual way; make an ordinary zip")
    _refuse_large(name, info.file_size)
    if info.file_size > SMALL and info.file_size > HIGHEST_RATIO * max(1, info.compress_size):
        raise Refused(
            f"{shown(name)} unpacks to more than {HIGHEST_RATIO} times its size; clear the "
            "outputs and hand in the notebook itself"
        )


def refuse_name(name: str) -> None:
    """Refuse a path that leads elsewhere, or that does not show what it is.

    Raises:
        Refused: It says why.
    """
    odd = [c for c in name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in BIDI]
    if odd:
        raise Refused(f"the name {shown(name)} has characters that cannot be seen")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name) or ".." in parts:
        raise Refused(f"the name {shown(name)} leads out of its folder")
    if len(name) > 400 or len(parts) > 20 or not parts:
        raise Refused(f"the name {shown(name)} is too long, or empty")


def refuse_too_much(files: list[File]) -> None:
    """Refuse too many files, too many bytes, and names that differ in case only.

    Raises:
        Refused: It says why.
    """
    if len(files) > MOST_FILES:
        raise Refused(f"there are more files than the {MOST_FILES} that are looked at")
    total = sum(file.size for file in files)
    if total > LARGEST_TOTAL:
        raise Refused(f"all files have {total} bytes; at most {LARGEST_TOTAL} are looked at")
    seen: dict[str, str] = {}
    for file in files:
        same = unicodedata.normalize("NFKC", file.name).casefold()
        if same in seen:
            raise Refused(
                f"{shown(file.name)} and {shown(seen[same])} have the same name but for capitals"
            )
        seen[same] = file.name


def is_left_over(name: str) -> bool:
    """Whether a file is what systems and editors leave behind, and nobody handed it in."""
    parts = PurePosixPath(name).parts
    return any(part in LEFT_OVER or part.startswith("._") for part in parts)


def is_archive(name: str) -> bool:
    """Whether a file is named as an archive."""
    return name.lower().endswith(ARCHIVES)


def shown(name: str) -> str:
    """A name to be read by people: what cannot be seen is spelt out."""
    text = name if len(name) <= 60 else name[:57] + "..."
    return "'" + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text) + "'"


def _walk(top: Path, folder: Path) -> Iterator[File]:
    """All files below a folder; links are never followed."""
    for path in sorted(itertools.islice(folder.iterdir(), MOST_FILES + 1)):
        name = path.relative_to(top).as_posix()
        if stat.S_ISDIR(path.lstat().st_mode):
            refuse_name(name)
            yield from _walk(top, path)
        else:
            yield on_disk(path, name)


def _refuse_large(name: str, size: int) -> None:
    if size > LARGEST_FILE:
        raise Refused(f"{shown(name)} has {size} bytes; at most {LARGEST_FILE} are read")


def _read_file(path: Path, name: str) -> bytes:
    """A file's bytes; should it be a link by now, it is not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(f"{shown(name)} cannot be opened: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused(f"{shown(name)} is no ordinary file")
        return file.read(LARGEST_FILE + 1)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A member's bytes, never more than it promised; what it promised is bounded already."""
    try:
        with archive.open(info) as file:
            return file.read(info.file_size)
    except Exception:  # noqa: BLE001 - broken members fail in many ways
        raise Refused(
            f"{shown(info.orig_filename)} cannot be unpacked: the zip is broken"
        ) from None


def _kind(mode: int) -> str:
    names = {
        stat.S_IFLNK: "link",
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
        stat.S_IFDIR: "folder",
    }
    return names.get(stat.S_IFMT(mode), "thing of an unknown kind")
