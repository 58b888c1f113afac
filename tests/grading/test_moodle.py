import csv
import io

import pytest
from graded_class import RIGHT, SILENT, TOTAL, write_class, write_work

from segedu.errors import InputError
from segedu.grading.manual import give
from segedu.grading.marks import read_graded
from segedu.grading.moodle import fill_worksheet, read_worksheet
from segedu.grading.roster import Person

HEADER = (
    "Identifier,Full name,ID number,Email address,Status,Grade,Maximum Grade,Grade can be changed,"
    "Last modified (submission),Last modified (grade),Feedback comments"
)
ROWS = (
    'Participant 11,Ana Pérez,,ana@example.org,Submitted,,6.00,Yes,"Friday, 1 May",-,',
    "Participant 12,Bo Li,,hidden@example.org,Submitted,1.00,6.00,Yes,-,-,old",
    "Participant 13,Cem Ak,cem,,Submitted,,6.00,No,-,-,",
    "Participant 14,Stranger,,s@example.org,No submission,,6.00,Yes,-,-,",
)
ROSTER = {
    "ana": Person("ana", "Someone Else", "ANA@example.org"),
    "bo": Person("bo", "bo  li", "bo@example.org"),
    "gus": Person("gus", "Gus", "gus@example.org"),
}


@pytest.fixture
def graded(tmp_path):
    return write_class(tmp_path / "graded")


@pytest.fixture
def worksheet(tmp_path):
    """Write a worksheet as Moodle does."""

    def write(header=HEADER, rows=ROWS, encoding="utf-8-sig", newline="\r\n"):
        path = tmp_path / "worksheet.csv"
        path.write_bytes((newline.join([header, *rows]) + newline).encode(encoding))
        return path

    return write


def filled(graded, source, roster=ROSTER, **options):
    target = source.with_name("filled.csv")
    done = fill_worksheet(read_graded(graded), source, target, roster, **options)
    text = target.read_bytes().decode("utf-8-sig")
    return done, {r["Identifier"][-2:]: r for r in csv.DictReader(io.StringIO(text, newline=""))}


def test_only_grades_and_comments_change(graded, worksheet):
    source = worksheet()
    done, rows = filled(graded, source)
    assert rows["12"]["Grade"] == "3.00"
    assert rows["12"]["Feedback comments"].startswith(
        "3 of 6<br>double_test: 0 of 2, 1 and 2 become"
    )
    assert "RAISED" not in rows["12"]["Feedback comments"]
    assert (rows["11"]["Grade"], rows["13"]["Grade"], rows["14"]["Grade"]) == ("", "", "")
    before = read_worksheet(source).rows
    for old, new in zip(before, rows.values(), strict=True):
        kept = set(old) - {"Grade", "Feedback comments"}
        assert {n: old[n] for n in kept} == {n: new[n] for n in kept}
    assert done.written == 1
    assert done.unknown == {
        "ana": "why: a person marks it",
        "cem": "Moodle says that the grade cannot be changed",
        "dee": "is not in the worksheet",
        "gus": "has no result",
    }


def test_the_files_marks_of_order_stay(graded, worksheet):
    source = worksheet()
    filled(graded, source)
    content = source.with_name("filled.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbfIdentifier,")
    assert content.count(b"\r\n") == 5
    source = worksheet(encoding="utf-8", newline="\n")
    filled(graded, source)
    content = source.with_name("filled.csv").read_bytes()
    assert content.startswith(b"Identifier,")
    assert b"\r" not in content


def test_comments_are_text_in_moodles_html_and_no_formula(graded, worksheet):
    give(graded, "ana", "why", 1, '<script>alert("1")</script>\n=1')
    _, rows = filled(graded, worksheet())
    said = rows["11"]["Feedback comments"]
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; =1" in said
    assert "<script" not in said
    assert rows["11"]["Grade"] == "6.00"


def test_another_maximum_is_refused_or_scaled(graded, worksheet):
    rows = [row.replace("6.00", '"100,00"') for row in ROWS]
    with pytest.raises(InputError, match="maximum grade is 100,00, and there are 6 marks"):
        filled(graded, worksheet(rows=rows))
    _, scaled = filled(graded, worksheet(rows=rows), scale=True)
    assert scaled["12"]["Grade"] == "50,00"


def test_a_name_of_two_people_is_nobodys(graded, worksheet):
    twice = [*ROWS, ROWS[1].replace("12", "15")]
    done, rows = filled(graded, worksheet(rows=twice))
    assert done.unknown["bo"] == "is not in the worksheet"
    assert rows["12"]["Grade"] == "1.00"


def test_one_row_is_never_two_students(graded, worksheet):
    write_work(graded, "bob", [RIGHT, TOTAL, SILENT])
    both = {**ROSTER, "bob": Person("bob", "Bo Li")}
    done, rows = filled(graded, worksheet(), both)
    assert done.unknown["bob"] == "is not in the worksheet"
    assert rows["12"]["Grade"] == "3.00"


def test_a_worksheet_may_lack_what_is_not_needed(graded, worksheet):
    header = "Identifier,Full name,Grade,Last modified (grade)"
    done, rows = filled(graded, worksheet(header, ["Participant 12,Bo Li,,-"]))
    assert (done.written, rows["12"]["Grade"]) == (1, "3.00")
    done, _ = filled(graded, worksheet(header, ["Participant 12,Bo Li,,-"]), roster=None)
    assert done.written == 0


def test_what_is_no_worksheet_is_refused(worksheet, tmp_path):
    with pytest.raises(InputError, match="has no column Identifier"):
        read_worksheet(worksheet("Name,Grade", []))
    (tmp_path / "latin.csv").write_bytes("Identifier,Grade\nÄ,1\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8"):
        read_worksheet(tmp_path / "latin.csv")
