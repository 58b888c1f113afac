"""The expected files, and nothing else, out of a zip archive that nobody vouches for."""

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from segedu.errors import InputError


def unpack(
    archive: Path, into: Path, *, folder: str, digests: Mapping[str, str], most: int
) -> None:
    """Write the files that `digests` names, and no others, below the folder `into`.

    The archive is one of a repository: everything in it is in one top folder, whose name does not
    matter. Each file is written under its final name, and removed again if its bytes are wrong.

    Args:
        archive: The zip file.
        into: Where the files go; need not exist.
        folder: The folder, within the top folder, that the paths of `digests` are relative to.
        digests: The SHA-256 of each expected file, by its path.
        most: How many bytes may be written in all, whatever the archive says of itself.

    Raises:
        InputError: If it is no usable zip file, or names places outside of its top folder, or holds
            links or two files of one name (upper and lower case being the same), or lacks a file,
            or a file's bytes are wrong, or there are more bytes than `most`.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(opened.infolist(), PurePosixPath(folder))
            for path in digests:
                if path not in members:
                    raise InputError(f"the archive has no {path}")
            for path, sha256 in digests.items():
                most -= _write(opened, members[path], into / path, sha256, most)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"the archive cannot be unpacked ({error})") from error


def _members(
    entries: Iterable[zipfile.ZipInfo], folder: PurePosixPath
) -> dict[str, zipfile.ZipInfo]:
    """The files in `folder` below the top folder, by their path in it."""
    members: dict[str, zipfile.ZipInfo] = {}
    seen = set()
    for entry in entries:
        parts = entry.filename.rstrip("/").split("/")
        if entry.filename.startswith("/") or {"", ".", ".."} & set(parts):
            raise InputError(f"the archive names a place outside itself: {entry.filename}")
        if "\\" in entry.filename or ":" in entry.filename:
            raise InputError(f"the archive has a name that is no plain path: {entry.filename}")
        inside = PurePosixPath(*parts[1:])
        if entry.is_dir() or not inside.is_relative_to(folder):
            continue
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise InputError(f"the archive holds a link, not a file: {entry.filename}")
        path = str(inside.relative_to(folder))
        if path.casefold() in seen:
            raise InputError(f"the archive holds two files of one name: {entry.filename}")
        seen.add(path.casefold())
        members[path] = entry
    return members


def _write(
    opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, sha256: str, most: int
) -> int:
    """Write one file if it is right; returns how many bytes it has."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _copy(opened, entry, target, sha256, most)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _copy(
    opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, sha256: str, most: int
) -> int:
    """Write one file, then look at its digest; returns how many bytes it has."""
    digest, written = hashlib.sha256(), 0
    with opened.open(entry) as source, target.open("wb") as file:
        while chunk := source.read(1 << 16):
            written += len(chunk)
            if written > most:
                raise InputError(f"the archive holds too many bytes: {entry.filename}")
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != sha256:
        raise InputError(f"{entry.filename}: wrong checksum")
    return written
