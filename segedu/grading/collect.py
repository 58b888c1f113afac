"""From what an inbox holds to one notebook for each student, with a line on everybody.

What is in the inbox was made by students: it is only read, and one that cannot be taken costs
nobody but its own student. When it came is what the learning platform says, never a file's date.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.grading import archives, moodle_inbox
from segedu.grading.archives import Refused
from segedu.grading.inbox import HandIn, hand_ins, notebook_of
from segedu.grading.roster import Person, read_rows, with_zone, write_rows

ARRIVALS, COLLECTED = "arrivals.csv", "collected.csv"
COLUMNS = ["student", "status", "arrived", "source", "reason"]
NOTHING = "nothing was handed in"


@dataclass(frozen=True)
class Times:
    """When things came, as the learning platform says.

    Attributes:
        of_student: By the student's id.
        of_file: By the name in the inbox, for students that handed in more than once.
        participants: Moodle's, by their number.
    """

    of_student: Mapping[str, datetime] = field(default_factory=dict)
    of_file: Mapping[str, datetime] = field(default_factory=dict)
    participants: dict[str, moodle_inbox.Participant] = field(default_factory=dict)


@dataclass(frozen=True)
class Collected:
    """What became of a student's hand-in.

    Attributes:
        student: The id; "" for a hand-in of nobody on the roster.
        status: "collected", "nothing", "refused" or "unknown".
        source: Its name in the inbox.
        arrived: When it came; None if nobody knows.
        reason: Why there is no notebook, or what else was found, for the student to read.
    """

    student: str
    status: str
    source: str = ""
    arrived: datetime | None = None
    reason: str = ""


def read_times(arrivals: Path | None, worksheet: Path | None, zone: str) -> Times:
    """What is known of when things came.

    Args:
        arrivals: A CSV file with the columns `student` and `arrived`, and perhaps `file`.
        worksheet: Moodle's grading worksheet.
        zone: The time zone of the worksheet.

    Raises:
        InputError: If a file cannot be read.
    """
    of_student: dict[str, datetime] = {}
    of_file: dict[str, datetime] = {}
    rows = read_rows(arrivals, ["student", "arrived"]) if arrivals else []
    for line, row in enumerate(rows, start=2):
        when = with_zone(row["arrived"], f"{arrivals}, line {line}")
        of_student[row["student"]] = max(when, of_student.get(row["student"], when))
        if row.get("file"):
            of_file[row["file"]] = when
    participants = moodle_inbox.read_participants(worksheet, zone) if worksheet else {}
    return Times(of_student, of_file, participants)


def collect(
    inbox: Path, out: Path, people: Mapping[str, Person], times: Times, name: str = "submission"
) -> list[Collected]:
    """Write `out/SID/NAME.ipynb` for each student, `arrivals.csv` and `collected.csv`.

    Args:
        inbox: A folder or a zip; nothing in it is changed.
        out: The folder for submissions, one for each assignment.
        people: The roster.
        times: When things came.
        name: Of the assignment.

    Returns:
        What became of everybody on the roster, in its order, then of hand-ins of nobody on it.

    Raises:
        InputError: If there is no inbox, or the submissions would lie in it.
    """
    if inbox.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"-o {out} lies in the inbox {inbox}; name a folder outside it")
    if not re.fullmatch(r"(?!\.)[\w.-]{1,64}", name):
        raise InputError(f"--name is {name!r}; expected letters, digits, '_', '-' and '.'")
    theirs: dict[str, list[tuple[HandIn, datetime | None]]] = {student: [] for student in people}
    nobodys = []
    for hand_in in hand_ins(inbox):
        student, when = _whose(hand_in, people, times)
        if student:
            theirs[student].append((hand_in, when))
        else:
            nobodys.append(hand_in.source)
    done = [_take(student, given, out, name) for student, given in theirs.items()]
    done += [Collected("", "unknown", s, reason="nobody on the roster") for s in sorted(nobodys)]
    _write_lists(done, out)
    return done


def read_collected(folder: Path) -> dict[str, str]:
    """By student, why `collect` has no notebook of theirs; empty where it did not run.

    Raises:
        InputError: If the list is there and cannot be read.
    """
    path = folder / COLLECTED
    if not path.is_file():
        return {}
    rows = read_rows(path, ["student", "status", "reason"])
    return {r["student"]: r["reason"] for r in rows if r["status"] in ("nothing", "refused")}


def format_collected(rows: Iterable[Collected]) -> str:
    """A table of students, what became of their hand-ins, and why.

    Example:
        >>> print(format_collected([Collected("ana", "nothing", reason="nothing was handed in")]))
        student  status   arrived  reason
        ana      nothing  -        nothing was handed in
    """
    lines = [("student", "status", "arrived", "reason")]
    for row in rows:
        reason = row.reason if row.student else f"{archives.shown(row.source)}: {row.reason}"
        lines.append((row.student or "-", row.status, _written(row.arrived) or "-", reason))
    widths = [max(map(len, column)) for column in list(zip(*lines, strict=True))[:3]]
    return "\n".join(
        "  ".join([*(f"{p:{w}}" for p, w in zip(line, widths, strict=False)), line[3]]).rstrip()
        for line in lines
    )


def _whose(
    hand_in: HandIn, people: Mapping[str, Person], times: Times
) -> tuple[str, datetime | None]:
    """Who handed something in, "" for nobody known, and when."""
    found = moodle_inbox.ENTRY.fullmatch(hand_in.source)
    if found is None:
        student = _plain_id(hand_in.source, people)
        return student, times.of_file.get(hand_in.source, times.of_student.get(student))
    number = found["number"]
    student = moodle_inbox.who(number, found["name"], times.participants, people.values())
    told = times.participants.get(number, moodle_inbox.Participant(number)).arrived
    return student, times.of_file.get(hand_in.source, times.of_student.get(student, told))


def _plain_id(entry: str, people: Mapping[str, Person]) -> str:
    """The student whose id an entry's name is, without an ending perhaps."""
    stem = entry[: -len(PurePosixPath(entry).suffix)] if PurePosixPath(entry).suffix else entry
    return next((name for name in (entry, stem) if name in people), "")


def _take(
    student: str, given: list[tuple[HandIn, datetime | None]], out: Path, name: str
) -> Collected:
    """Write a student's notebook, or say why there is none; an older one is removed then."""
    target = out / student / f"{name}.ipynb"
    if not given:
        target.unlink(missing_ok=True)
        return Collected(student, "nothing", reason=NOTHING)
    try:
        hand_in, when = _last(given)
        file, remark = notebook_of(hand_in, name)
        content = file.read()
    except Refused as error:
        target.unlink(missing_ok=True)
        hand_in, when = given[-1]
        return Collected(student, "refused", hand_in.source, when, str(error))
    with whole_file(target) as unfinished:
        unfinished.write_bytes(content)
    return Collected(student, "collected", hand_in.source, when, remark)


def _last(given: list[tuple[HandIn, datetime | None]]) -> tuple[HandIn, datetime | None]:
    """The hand-in that came last."""
    if len(given) == 1:
        return given[0]
    known = [(when, number) for number, (_, when) in enumerate(given) if when is not None]
    latest = sorted(known)[-2:]
    if len(known) < len(given) or latest[0][0] == latest[1][0]:
        names = ", ".join(archives.shown(hand_in.source) for hand_in, _ in given[:4])
        raise Refused(f"{len(given)} hand-ins ({names}), and nobody knows which came last")
    return given[latest[1][1]]


def _write_lists(done: list[Collected], out: Path) -> None:
    rows = [
        {
            "student": row.student,
            "status": row.status,
            "arrived": _written(row.arrived),
            "source": _harmless(row.source),
            "reason": row.reason,
        }
        for row in done
    ]
    with whole_file(out / COLLECTED) as unfinished:
        write_rows(unfinished, rows, COLUMNS)
    known = [{"student": r["student"], "arrived": r["arrived"]} for r in rows if r["arrived"]]
    with whole_file(out / ARRIVALS) as unfinished:
        write_rows(unfinished, known, ["student", "arrived"])


def _harmless(text: str) -> str:
    """A cell of a table that no spreadsheet takes for a formula, on one line."""
    plain = archives.shown(text)[1:-1]
    return f"'{plain}" if plain.startswith(("=", "+", "-", "@")) else plain


def _written(when: datetime | None) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds") if when else ""
