from datetime import datetime

import pytest

from segedu.errors import InputError
from segedu.grading.moodle_inbox import Participant, is_worksheet, read_participants, who
from segedu.grading.roster import Person

HEADER = (
    "\ufeffIdentifier,Full name,Email address,Status,Grade,Maximum Grade,Grade can be changed,"
    "Last modified (submission),Last modified (grade),Feedback comments\n"
)


def write(tmp_path, *rows, name="Grades-x.csv"):
    path = tmp_path / name
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wednesday, 10 June 2026, 2:14 PM", "2026-06-10T14:14+02:00"),
        ("Wednesday,\u00a010 June 2026, 2:14\u202fPM", "2026-06-10T14:14+02:00"),
        ("Wednesday, June 10, 2026, 12:05 AM", "2026-06-10T00:05+02:00"),
        ("Thursday, 10 December 2026, 14:14", "2026-12-10T14:14+01:00"),
        ("10/12/2026, 14:14", "2026-12-10T14:14+01:00"),
        ("2026-12-10T14:14:00+00:00", "2026-12-10T14:14+00:00"),
    ],
)
def test_times_are_read_as_moodle_writes_them_in_the_zone_given(tmp_path, text, expected):
    path = write(tmp_path, f'Participant 77,Ana,a@x,Submitted,,10,Yes,"{text}",-,')
    found = read_participants(path, "Europe/Berlin")["77"]
    assert found == Participant("77", "Ana", "a@x", datetime.fromisoformat(expected))


def test_who_has_not_handed_in_has_no_time(tmp_path):
    path = write(tmp_path, "Participant 77,Ana,a@x,No submission,,10,Yes,-,-,")
    assert read_participants(path, "UTC")["77"].arrived is None


def test_what_cannot_be_read_is_refused_in_one_line(tmp_path):
    path = write(tmp_path, 'Participant 77,Ana,a@x,S,,10,Yes,"Mittwoch, 10. Juni 2026",-,')
    with pytest.raises(InputError, match=r"line 2: .*Mittwoch.*--arrivals"):
        read_participants(path, "UTC")
    with pytest.raises(InputError, match=r"--zone is 'Berlin'"):
        read_participants(path, "Berlin")
    with pytest.raises(InputError, match=r"--zone is '\.\./x'"):
        read_participants(path, "../x")


def test_a_worksheet_is_known_by_its_columns(tmp_path):
    assert is_worksheet(write(tmp_path))
    (tmp_path / "other.csv").write_text("student,arrived\n")
    assert not is_worksheet(tmp_path / "other.csv")
    assert not is_worksheet(tmp_path / "none.csv")
    (tmp_path / "a.txt").write_text(HEADER)
    assert not is_worksheet(tmp_path / "a.txt")


def test_a_participant_is_found_by_email_first_then_by_a_name_that_one_only_has():
    people = [
        Person("s1", "Ana Berg", "ana@x.org"),
        Person("s2", "Ana Berg", "berg@x.org"),
        Person("s3", "Bo  Chu"),
    ]
    rows = {"1": Participant("1", "Ana Berg", "BERG@x.org"), "2": Participant("2")}
    assert who("1", "Ana Berg", rows, people) == "s2"
    assert who("2", "Ana Berg", rows, people) == ""
    rows["4"] = Participant("4", "Bo Chu", "ana@x.org")
    assert who("4", "Bo Chu", rows, people) == "s1"
    assert who("3", "bo chu", rows, people) == "s3"
    assert who("2", "Participant", rows, people) == ""
