"""Whole public data sets, downloaded and checked file by file; needs no torch.

Each set comes from a public repository at one commit, as its manifest says. The addresses tried, in
this order, are, for each mirror BASE and then for the two public hosts of that repository:

    BASE/OWNER/NAME/zip/COMMIT      the archive of the repository at that commit
    BASE/OWNER/NAME/COMMIT/PATH     the files of that commit one by one

Mirrors are arguments of `get`, then the base addresses in `SEGEDU_MIRRORS`, between spaces.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import pooch
import requests
from tqdm import tqdm

from segedu.data.catalog import how_many, where
from segedu.data.fetch import BROKEN, Resuming
from segedu.data.manifests import Manifest, manifest
from segedu.data.unpack import unpack
from segedu.errors import InputError

ARCHIVES = "https://codeload.github.com"
FILES = "https://raw.githubusercontent.com"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Verdict:
    """How the files of a copy compare with those of the whole public set.

    Attributes:
        missing: The paths of files that are not there.
        wrong: The paths of files whose bytes are others.
        total: How many files the whole set has.
    """

    missing: tuple[str, ...]
    wrong: tuple[str, ...]
    total: int

    @property
    def whole(self) -> bool:
        """Whether every file is there and right."""
        return not self.missing and not self.wrong


def get(
    name: str, *, root: Path | None = None, mirrors: Sequence[str] = (), progress: bool = True
) -> Path:
    """Download the whole set `name`, unless it is there; returns its folder.

    Nothing appears at the set's place before every file has been checked. Until then all is in the
    hidden folder `.NAME.DIGEST.partial` beside it; after an interruption the next call goes on from
    there. A set of which a part is there is left as it is, since its files may be somebody's.

    Args:
        name: One of `segedu.data.catalog.ENTRIES` that has files.
        root: The folder that holds the sets; `segedu.data.catalog.data_root()` if None.
        mirrors: Base addresses that are tried before the public ones.
        progress: Whether to show bars.

    Raises:
        InputError: If there is no such set, or a part of it is there, or the disk is too small or
            not to be written, or no address gives the right files; the message says what each
            address answered.
    """
    target, whole = where(name, root), manifest(name)
    present, total = how_many(name, root)
    if present == total:
        return target
    if target.exists() and any(target.iterdir()):
        raise InputError(
            f"{target}: holds {present:,} of {total:,} files of {name} and is left as it is; move "
            "it away to download the whole set, or set SEGEDU_DATA to another folder"
        )
    pooch.get_logger().setLevel("WARNING")  # the bars say enough
    staging = target.with_name(f".{name}.{whole.digest[:8]}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _need_room(target, staging, whole)
        staging.mkdir(exist_ok=True)
        bases = [*mirrors, *os.environ.get("SEGEDU_MIRRORS", "").split()]
        _prepare(whole, staging, bases, progress=progress)
        if target.exists():
            target.rmdir()
        (staging / "files").rename(target)
        shutil.rmtree(staging)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise InputError(
                f"{target}: cannot be written ({error.strerror}); set SEGEDU_DATA to another folder"
            ) from error
        shutil.rmtree(staging, ignore_errors=True)
        raise _no_room(target, whole) from error
    return target


def verify(name: str, *, root: Path | None = None) -> Verdict:
    """Compare every file of a copy with the digests of the whole public set; reads them all.

    Raises:
        InputError: If there is no such set, or it has no files.
    """
    return _compare(where(name, root), manifest(name))


def _compare(folder: Path, whole: Manifest) -> Verdict:
    """The verdict on the files in a folder."""
    missing, wrong = [], []
    for path, sha256 in whole.digests.items():
        if not (folder / path).is_file():
            missing.append(path)
        elif hashlib.sha256((folder / path).read_bytes()).hexdigest() != sha256:
            wrong.append(path)
    return Verdict(tuple(missing), tuple(wrong), whole.files)


def _need_room(target: Path, staging: Path, whole: Manifest) -> None:
    """Refuse to begin what the disk cannot hold: the archive and the files, less what is there."""
    there = sum(path.stat().st_size for path in staging.rglob("*"))
    if shutil.disk_usage(target.parent).free < 2 * whole.bytes - there:
        raise _no_room(target, whole)


def _no_room(target: Path, whole: Manifest) -> InputError:
    """What to say when the disk is full."""
    return InputError(
        f"{target}: the disk is full; {whole.name} needs {2 * whole.bytes / 1e6:,.1f} MB while it "
        "is downloaded; make room, or set SEGEDU_DATA to a folder on another disk"
    )


def _prepare(whole: Manifest, staging: Path, mirrors: Sequence[str], *, progress: bool) -> None:
    """Fill `staging/files` with the whole set."""
    files, archive = staging / "files", whole.archive
    public = [(ARCHIVES, FILES)]
    bases = [(base.rstrip("/"), base.rstrip("/")) for base in mirrors] + public
    with requests.Session() as session:
        fetch = Resuming(staging, session, 10 * whole.bytes + 10**8, progress)
        each = Resuming(staging, session, whole.bytes)
        ways: list[tuple[str, Callable[[str], None]]] = []
        for zips, raw in bases:
            address = f"{zips}/{archive.repository}/zip/{archive.commit}"
            ways.append((address, partial(_by_archive, whole, staging, fetch)))
            address = f"{raw}/{archive.repository}/{archive.commit}"
            ways.append((address, partial(_one_by_one, whole, files, each, progress=progress)))
        _first_that_works(whole.name, ways)
        for single in whole.singles:
            path = f"{single.repository}/{single.commit}/{quote(single.path)}"
            save = partial(_file, files, single.place, single.sha256, each)
            _first_that_works(single.place, [(f"{raw}/{path}", save) for _, raw in bases])
    _remove_strays(files, whole)
    verdict = _compare(files, whole)
    if not verdict.whole:
        changed = (*verdict.wrong, *verdict.missing)[0]
        raise InputError(f"{files / changed}: changed after it was checked; try again")


def _remove_strays(files: Path, whole: Manifest) -> None:
    """Delete what is no part of the set: the unfinished files of a process that was killed."""
    for path in [path for path in files.rglob("*") if path.is_file()]:
        if path.relative_to(files).as_posix() not in whole.digests:
            path.unlink()


def _first_that_works(what: str, ways: Sequence[tuple[str, Callable[[str], None]]]) -> None:
    """Try each way with its address until one gets the right files."""
    answers = []
    for address, way in ways:
        try:
            return way(address)
        except (requests.RequestException, InputError) as error:
            answers.append(f"{address}: {_in_short(error)}")
    raise InputError(
        f"{what}: no address gave the right files ({'; '.join(answers)}); check the connection, or "
        "name a mirror with SEGEDU_MIRRORS"
    )


def _by_archive(whole: Manifest, staging: Path, fetch: Resuming, address: str) -> None:
    """All files of the archive's folder, from the archive; a broken archive is thrown away."""
    archive = Path(
        pooch.retrieve(address, None, fname="archive.zip", path=staging, downloader=fetch)
    )
    try:
        unpack(
            archive,
            staging / "files" / whole.archive.place,
            folder=whole.archive.folder,
            digests=whole.listed,
            most=whole.archive_bytes,
        )
    except InputError:
        archive.unlink()
        raise


def _one_by_one(
    whole: Manifest, files: Path, fetch: Resuming, address: str, *, progress: bool
) -> None:
    """The same files, each from its own address, but for those that are already right."""
    folder, place = PurePosixPath(whole.archive.folder), PurePosixPath(whole.archive.place)
    for path, sha256 in tqdm(whole.listed.items(), unit="file", disable=not progress):
        _file(files, str(place / path), sha256, fetch, f"{address}/{quote(str(folder / path))}")


def _file(files: Path, place: str, sha256: str, fetch: Resuming, address: str) -> None:
    """One file, unless it is there and right."""
    try:
        pooch.retrieve(address, f"sha256:{sha256}", fname=place, path=files, downloader=fetch)
    except (InputError, requests.RequestException):
        raise
    except ValueError as error:  # what pooch raises when a digest differs
        raise InputError(f"{place}: wrong checksum") from error


def _in_short(error: Exception) -> str:
    """What went wrong, without the inner workings of the connection."""
    if isinstance(error, requests.HTTPError):
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, BROKEN):
        return "no connection, or it broke"
    return " ".join(str(error).split())
