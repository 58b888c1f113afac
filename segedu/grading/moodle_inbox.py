"""What Moodle says of hand-ins: the names in a download of all submissions, and when each came.

A download has a folder `Full Name_12345_assignsubmission_file_` for each participant, or, where the
option for folders was off, files whose names begin so. The grading worksheet knows participants by
that number.

Source: Moodle 4, mod/assign/gradingtable.php (`col_recordid`, `col_timesubmitted`) and
mod/assign/feedback/offline/importgradeslib.php; `userdate` writes the times.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from segedu.errors import InputError
from segedu.grading.roster import Person, read_rows

ENTRY = re.compile(
    r"(?P<name>.*)_(?P<number>\d{1,12})_assignsubmission_(?P<kind>[a-z]+)(?:_(?P<file>.*))?", re.S
)
IDENTIFIER, SUBMITTED = "Identifier", "Last modified (submission)"
FORMATS = (
    "%A, %d %B %Y, %I:%M %p",
    "%A, %B %d, %Y, %I:%M %p",
    "%A, %d %B %Y, %H:%M",
    "%d/%m/%Y, %H:%M",
    "%d %B %Y, %I:%M %p",
)


@dataclass(frozen=True)
class Participant:
    """A row of the worksheet.

    Attributes:
        number: Of the participant in this assignment.
        name: "" where names are hidden.
        email: "" where names are hidden.
        arrived: When the submission was last changed; None if there is none.
    """

    number: str
    name: str = ""
    email: str = ""
    arrived: datetime | None = None


def read_participants(path: Path, zone: str) -> dict[str, Participant]:
    """The rows of a grading worksheet by the participant's number.

    Args:
        path: The CSV file that Moodle wrote, in English.
        zone: The time zone in which Moodle showed times to whoever downloaded it.

    Raises:
        InputError: If it is none, or a time cannot be read.
    """
    try:
        here = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(f"--zone is {zone!r}; expected a name such as Europe/Berlin") from error
    found = {}
    for line, row in enumerate(read_rows(path, [IDENTIFIER]), start=2):
        number = re.sub(r"\D", "", row[IDENTIFIER])
        found[number] = Participant(
            number,
            row.get("Full name", ""),
            row.get("Email address", ""),
            read_time(row.get(SUBMITTED, ""), here, f"{path}, line {line}"),
        )
    return found


def read_time(text: str, zone: ZoneInfo, where: str) -> datetime | None:
    """A time as Moodle writes it in English, or in ISO form; None for "-".

    Raises:
        InputError: If it is in another form; the message begins with `where`.

    Example:
        >>> read_time("Wednesday, 10 June 2026, 2:14 PM", ZoneInfo("Europe/Berlin"), "").isoformat()
        '2026-06-10T14:14:00+02:00'
    """
    plain = " ".join(text.split())
    if plain in ("", "-"):
        return None
    when = _parsed(plain)
    if when is None:
        raise InputError(
            f"{where}: {SUBMITTED} is {text!r}; expected a time as Moodle writes it in English, "
            "such as 'Wednesday, 10 June 2026, 2:14 PM'; or give times with --arrivals"
        )
    return when if when.tzinfo else when.replace(tzinfo=zone)


def is_worksheet(path: Path) -> bool:
    """Whether a file is a grading worksheet, by its columns."""
    if path.suffix.lower() != ".csv" or path.is_symlink() or not path.is_file():
        return False
    try:
        read_rows(path, [IDENTIFIER, "Grade"])
    except InputError:
        return False
    return True


def who(
    number: str, name: str, participants: dict[str, Participant], people: Iterable[Person]
) -> str:
    """The id of the one on the roster that a participant is, by e-mail or else by name; or "".

    Args:
        number: Of the participant.
        name: As the download has it.
        participants: Of the worksheet; may be empty.
        people: The roster.
    """
    everybody = list(people)
    row = participants.get(number, Participant(number))
    for wanted, attribute in ((row.email, "email"), (row.name, "name"), (name, "name")):
        same = [p.student for p in everybody if wanted and _same(getattr(p, attribute), wanted)]
        if len(same) == 1:
            return same[0]
    return ""


def _same(one: str, other: str) -> bool:
    """Whether two names or addresses are the same but for capitals and spaces."""
    return " ".join(one.casefold().split()) == " ".join(other.casefold().split())


def _parsed(text: str) -> datetime | None:
    """A time in one of the known forms."""
    with suppress(ValueError):
        return datetime.fromisoformat(text)
    for form in FORMATS:
        with suppress(ValueError):
            return datetime.strptime(text, form)
    return None
