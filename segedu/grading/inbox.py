"""What lies in an inbox: a folder or a zip, laid out by a learning platform or by hand.

Nothing is unpacked. What is wrong with one hand-in is found when its files are asked for, and costs
no other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segedu.errors import InputError
from segedu.grading import archives, moodle_inbox
from segedu.grading.archives import File, Refused


@dataclass(frozen=True)
class HandIn:
    """What lies in the inbox under one name.

    Attributes:
        source: That name.
        files: Lists its files; raises `Refused`.
    """

    source: str
    files: Callable[[], list[File]]


def hand_ins(inbox: Path) -> Iterator[HandIn]:
    """What an inbox holds, in the order of names; Moodle's files of one participant are one.

    Raises:
        InputError: If it is neither a folder nor a zip.
    """
    if inbox.is_dir():
        entries = {path.name: _of_path(path) for path in sorted(inbox.iterdir())}
        lists = [path.name for path in inbox.glob("*.csv") if moodle_inbox.is_worksheet(path)]
        entries = {n: e for n, e in entries.items() if n not in lists}
    elif inbox.is_file():
        entries = _of_zip(inbox)
    else:
        raise InputError(f"{inbox}: is no folder and no zip; expected what was handed in")
    merged: dict[str, list[str]] = {}
    for entry in entries:
        found = moodle_inbox.ENTRY.fullmatch(entry)
        if entry.startswith(".") or archives.is_left_over(entry):
            continue
        if found is None:
            merged[entry] = [entry]
        elif found["kind"] == "file":
            merged.setdefault(f"{found['name']}_{found['number']}", []).append(entry)
    for parts in merged.values():
        yield HandIn(parts[0], _together([entries[part] for part in parts]))


def notebook_of(hand_in: HandIn, name: str) -> tuple[File, str]:
    """The notebook in a hand-in, and a remark on what else there is.

    Raises:
        Refused: If there is none, more than one, or anything that cannot be trusted.
    """
    files = [f for f in _unpacked(hand_in.files()) if not archives.is_left_over(f.name)]
    archives.refuse_too_much(files)
    found = [file for file in files if file.name.lower().endswith(".ipynb")]
    right = [file for file in found if PurePosixPath(file.name).name == f"{name}.ipynb"]
    shown = ", ".join(archives.shown(PurePosixPath(file.name).name) for file in found[:4])
    if not found:
        others = ", ".join(archives.shown(PurePosixPath(f.name).name) for f in files[:4])
        raise Refused(f"no notebook was handed in; found {others or 'no file at all'}")
    if len(found) > 1 and len(right) != 1:
        raise Refused(f"{len(found)} notebooks were handed in ({shown}); hand in one")
    if len(found) > 1:
        return right[0], f"of {len(found)} notebooks ({shown}) the one of the right name was taken"
    return found[0], ""


def _of_path(path: Path) -> Callable[[], list[File]]:
    """Lists the files of an entry of an inbox that is a folder."""

    def files() -> list[File]:
        if path.is_dir() and not path.is_symlink():
            return archives.in_folder(path)
        return [archives.on_disk(path, path.name)]

    return files


def _of_zip(inbox: Path) -> dict[str, Callable[[], list[File]]]:
    """The entries of an inbox that is a zip; what is wrong with one is that one's fault alone."""
    try:
        archive = archives.opened(inbox)
    except Refused as error:
        raise InputError(f"{inbox}: {error}; expected the zip of all submissions") from error
    groups: dict[str, list[File]] = {}
    faults: dict[str, Refused] = {}
    for info in archive.infolist():
        top, _, rest = info.orig_filename.partition("/")
        try:
            archives.refuse_member(info)
        except Refused as error:
            faults.setdefault(top, error)
        members = groups.setdefault(top, [])
        if not info.is_dir():
            members.append(archives.member(archive, info, rest or top))

    def of(top: str) -> Callable[[], list[File]]:
        def files() -> list[File]:
            if top in faults:
                raise faults[top]
            archives.refuse_too_much(groups[top])
            return groups[top]

        return files

    return {top: of(top) for top in sorted(groups)}


def _together(lists: list[Callable[[], list[File]]]) -> Callable[[], list[File]]:
    return lambda: [file for files in lists for file in files()]


def _unpacked(files: list[File]) -> Iterator[File]:
    """The files, with those of a zip in its place; no zip may hold another."""
    for file in files:
        if not archives.is_archive(file.name) or archives.is_left_over(file.name):
            yield file
            continue
        if not file.name.lower().endswith(".zip"):
            raise Refused(f"{archives.shown(file.name)} is no zip; hand in the notebook itself")
        for inner in archives.in_zip(file.read()):
            if archives.is_archive(inner.name):
                raise Refused(f"{archives.shown(inner.name)} is an archive within an archive")
            yield inner
