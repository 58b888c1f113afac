"""The roster: who is in the class, and what lists say of each."""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from segedu.errors import InputError

STUDENT_ID = re.compile(r"(?![.-])[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Person:
    """Somebody on the roster.

    Attributes:
        student: The id; the name of the student's folder.
        name: The full name, as the learning platform has it; "" if nobody said.
        email: "" if nobody said.
    """

    student: str
    name: str = ""
    email: str = ""


def read_roster(path: Path) -> dict[str, Person]:
    """People by their id, in the file's order; columns `student`, and perhaps `name` and `email`.

    Raises:
        InputError: If there is no such file or column, or an id is odd or stands twice.
    """
    people: dict[str, Person] = {}
    seen: set[str] = set()
    for line, row in enumerate(read_rows(path, ["student"]), start=2):
        student = row["student"]
        if not STUDENT_ID.fullmatch(student):
            raise InputError(
                f"{path}, line {line}: student is {student!r}; expected 1 to 64 letters, digits, "
                "'.', '_' and '-', beginning with a letter, digit or '_'"
            )
        if student.casefold() in seen:
            raise InputError(
                f"{path}, line {line}: {student} is there already, in some spelling; expected each "
                "student once"
            )
        seen.add(student.casefold())
        people[student] = Person(student, row.get("name", ""), row.get("email", ""))
    if not people:
        raise InputError(f"{path}: has nobody in it; expected a line for each student")
    return people


def read_rows(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a CSV file in UTF-8, each value stripped; columns beyond those named are kept.

    Raises:
        InputError: If the file cannot be read, or a column is not there.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV in UTF-8 ({error})") from error
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(f"{path}: has the columns {header}; expected {', '.join(missing)} too")
    return [row for row in rows if any(row.values())]


def read_arrivals(path: Path) -> dict[str, datetime]:
    """When each student handed in, from a CSV file with the columns `student` and `arrived`.

    The latest counts where a student stands more than once.

    Raises:
        InputError: If the file cannot be read, or a time has no zone.
    """
    times: dict[str, datetime] = {}
    for line, row in enumerate(read_rows(path, ["student", "arrived"]), start=2):
        if row["arrived"]:
            when = with_zone(row["arrived"], f"{path}, line {line}")
            times[row["student"]] = max(when, times.get(row["student"], when))
    return times


def with_zone(text: str, where: str) -> datetime:
    """A time in ISO form, with its zone.

    Raises:
        InputError: If it is none; the message begins with `where`.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise InputError(
            f"{where}: arrived is {text!r}; expected a time with its zone, such as "
            "2026-12-01T18:00:00+01:00"
        )
    return when


def write_rows(path: Path, rows: Iterable[Mapping[str, str]], columns: list[str]) -> None:
    """Write a CSV file; the caller gives a name that becomes whole."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
