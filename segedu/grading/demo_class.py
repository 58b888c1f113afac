"""A class to try the tools on: an assignment, a roster, and an inbox as Moodle exports one.

Thirty invented people hand in work of many qualities. Everything is made from the assignment's own
solutions and mutants, without running any of it, and is the same each time.
"""

import csv
import io
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.grading.assignment import Assignment, read_assignment
from segedu.grading.demo_work import QUALITIES, HandedIn, made
from segedu.grading.release import key
from segedu.grading.roster import Person, write_rows

NAMES = (
    "Aino Aaltonen",
    "Kwame Boateng",
    "Ana María Castillo Pérez",
    "Đặng Thị Hồng",
    "Zeynep Demir",
    "Amina El Idrissi",
    "Søren Fjeldgaard",
    "Giulia Ferraro",
    "Nomvula Gumede",
    "Yael Harari",
    "Björn Ingólfsson",
    "Priya Iyer",
    "Marek Jabłoński",
    "Aigerim Kassymova",
    "Kim Seo-yeon",
    "Nino Lomidze",
    "Li Wenxuan",
    "Rangi Mahuika",
    "Siobhán Ní Bhriain",
    "Chidinma Okafor",
    "Tomás O'Rourke",
    "Ioana Popescu",
    "Farhad Rahimi",
    "Mele Sopoaga",
    "佐藤 葵",
    "Γιώργος Σταθόπουλος",
    "Олена Шевчук",
    "Jean-Luc Tremblay",
    "Itzel Uc Canché",
    "ليلى ياسين",
)
STRANGER = "Guest Account"
FIRST_NUMBER = 48_213  # of a participant in Moodle
NO_DUE = datetime(2027, 1, 15, 18, tzinfo=UTC)
HEADER = (
    "Identifier",
    "Full name",
    "Email address",
    "Status",
    "Grade",
    "Maximum Grade",
    "Grade can be changed",
    "Last modified (submission)",
    "Last modified (grade)",
    "Feedback comments",
)


def write_demo_class(source: Path, folder: Path, students: int = len(NAMES)) -> Path:
    """Write a class into a new folder: `assignment/NAME/`, `roster.csv`, `worksheet.csv`, `inbox/`.

    Args:
        source: The folder of the assignment that the class was set.
        folder: A folder that is not there yet, or is empty.
        students: How many; the first ones show the most.

    Returns:
        The folder of the assignment's copy.

    Raises:
        InputError: If the folder has something in it, or there is no assignment.
    """
    if not 1 <= students <= len(NAMES):
        raise InputError(f"--students is {students}; expected 1 to {len(NAMES)}")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: has something in it; name a folder that is not there yet")
    assignment = read_assignment(source)
    copied = folder / "assignment" / assignment.name
    shutil.copytree(source, copied, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    secret = key(assignment)
    people = [_person(number) for number in range(students)]
    works = [made(secret, quality) for quality in QUALITIES[:students]]
    _write_roster(people, folder / "roster.csv")
    _write_worksheet(people, works, assignment, folder / "worksheet.csv")
    for number, (person, work) in enumerate(zip(people, works, strict=True)):
        _hand_in(person.name, FIRST_NUMBER + number, work, folder / "inbox")
    _hand_in(STRANGER, FIRST_NUMBER + len(NAMES), made(secret, "full"), folder / "inbox")
    return copied


def moodle_time(when: datetime) -> str:
    """A time as Moodle writes it in English.

    Example:
        >>> moodle_time(datetime(2027, 1, 5, 0, 7))
        'Tuesday, 5 January 2027, 12:07 AM'
    """
    hour = when.hour % 12 or 12
    half = "AM" if when.hour < 12 else "PM"
    return f"{when:%A}, {when.day} {when:%B %Y}, {hour}:{when:%M} {half}"


def _person(number: int) -> Person:
    student = f"s{number + 1:02d}"
    return Person(student, NAMES[number], f"{student}@example.org")


def _hand_in(name: str, number: int, work: HandedIn, inbox: Path) -> None:
    """Write the folder that Moodle makes of a participant's files, if there are any."""
    for file, content in work.files.items():
        with whole_file(inbox / f"{name}_{number}_assignsubmission_file_" / file) as unfinished:
            unfinished.write_bytes(content)


def _write_roster(people: list[Person], path: Path) -> None:
    rows = [{"student": p.student, "name": p.name, "email": p.email} for p in people]
    with whole_file(path) as unfinished:
        write_rows(unfinished, rows, ["student", "name", "email"])


def _write_worksheet(
    people: list[Person], works: list[HandedIn], assignment: Assignment, path: Path
) -> None:
    """Write the grading worksheet as Moodle exports it before anybody is graded."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(HEADER)
    table.writerows(_worksheet_rows(people, works, assignment))
    with whole_file(path) as unfinished:
        unfinished.write_text(text.getvalue(), encoding="utf-8-sig", newline="")


def _worksheet_rows(
    people: list[Person], works: list[HandedIn], assignment: Assignment
) -> Iterator[list[str]]:
    due = (assignment.due or NO_DUE).astimezone(UTC)
    for number, (person, work) in enumerate(zip(people, works, strict=True)):
        arrived = moodle_time(due + timedelta(hours=work.hours, minutes=-number))
        yield [
            f"Participant {FIRST_NUMBER + number}",
            person.name,
            person.email,
            "Submitted for grading" if work.files else "No submission",
            "",
            f"{assignment.total:.2f}",
            "Yes",
            arrived if work.files else "-",
            "-",
            "",
        ]
