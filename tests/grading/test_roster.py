from datetime import datetime

import pytest

from segedu.errors import InputError
from segedu.grading.roster import Person, read_arrivals, read_roster


def write(tmp_path, text):
    path = tmp_path / "roster.csv"
    path.write_bytes(text.encode())
    return path


def test_people_are_read_in_their_order_with_what_the_list_says(tmp_path):
    path = write(tmp_path, '\ufeffstudent, name ,email,group\nbo_1,"Ö, Bo",bo@x.org,7\n\nana,,\n')
    assert read_roster(path) == {
        "bo_1": Person("bo_1", "Ö, Bo", "bo@x.org"),
        "ana": Person("ana"),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("student\n../x\n", r"line 2: student is '\.\./x'"),
        ("student\n.hidden\n", "line 2"),
        ("student\n-rf\n", "line 2"),
        ("student\n" + "a" * 65 + "\n", "line 2"),
        ("student\n=1+1\n", "line 2"),
        ("student\nana\nAna\n", "line 3: Ana is there already"),
        ("student\n", "nobody"),
        ("name\nana\n", "expected student too"),
        ("", "expected student too"),
    ],
)
def test_an_odd_roster_is_refused_in_one_line(tmp_path, text, said):
    with pytest.raises(InputError, match=said) as caught:
        read_roster(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_roster_that_is_not_there_or_not_utf8_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: cannot be read"):
        read_roster(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("student\nJosé".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv: cannot be read"):
        read_roster(tmp_path / "latin.csv")


def test_of_several_arrivals_the_latest_counts_and_each_needs_a_zone(tmp_path):
    path = write(
        tmp_path,
        "student,arrived\nana,2026-12-01T10:00+00:00\nana,2026-12-01T12:30+01:00\nbo,\n"
        "ana,2026-12-01T09:00+00:00\n",
    )
    assert read_arrivals(path) == {"ana": datetime.fromisoformat("2026-12-01T11:30+00:00")}
    for text in ("2026-12-01T10:00", "yesterday"):
        with pytest.raises(InputError, match=r"line 2: arrived is .*with its zone"):
            read_arrivals(write(tmp_path, f"student,arrived\nana,{text}\n"))
