import csv
import io
import shutil
import zipfile
from datetime import datetime

import nbformat
import pytest

from segedu.errors import InputError
from segedu.grading import moodle_inbox
from segedu.grading.assignment import read_assignment
from segedu.grading.collect import collect, read_times
from segedu.grading.demo_class import NAMES, moodle_time, write_demo_class
from segedu.grading.demo_work import QUALITIES, made
from segedu.grading.notebook_file import Invalid
from segedu.grading.roster import read_roster
from segedu.grading.submission import read_submission


@pytest.fixture
def demo(source, tmp_path):
    write_demo_class(source, tmp_path / "demo")
    return tmp_path / "demo"


def all_files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_thirty_people_and_a_stranger_hand_in_and_one_does_not(demo):
    roster = read_roster(demo / "roster.csv")
    assert len(roster) == len(NAMES) == len(QUALITIES) == 30
    assert len(set(NAMES)) == 30
    assert len(list((demo / "inbox").iterdir())) == 30
    assert all(moodle_inbox.ENTRY.fullmatch(path.name) for path in (demo / "inbox").iterdir())


def test_it_is_the_same_each_time(demo, source, tmp_path):
    write_demo_class(source, tmp_path / "again")
    assert all_files(demo) == all_files(tmp_path / "again")


def test_the_worksheet_is_as_moodle_exports_it(demo):
    text = (demo / "worksheet.csv").read_bytes().decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert moodle_inbox.is_worksheet(demo / "worksheet.csv")
    assert rows[0]["Last modified (submission)"] == "Monday, 30 November 2026, 4:00 PM"
    nothing = rows[QUALITIES.index("nothing")]
    assert (nothing["Status"], nothing["Last modified (submission)"]) == ("No submission", "-")
    assert {row["Maximum Grade"] for row in rows} == {"6.00"}


@pytest.mark.parametrize(
    ("hour", "shown"), [(0, "12:05 AM"), (11, "11:05 AM"), (12, "12:05 PM"), (23, "11:05 PM")]
)
def test_hours_are_those_of_a_clock_with_twelve(hour, shown):
    assert moodle_time(datetime(2027, 1, 5, hour, 5)) == f"Tuesday, 5 January 2027, {shown}"


def test_it_is_collected_as_it_should_be(demo):
    times = read_times(None, demo / "worksheet.csv", "UTC")
    people = read_roster(demo / "roster.csv")
    rows = collect(demo / "inbox", demo / "submissions", people, times, "tiny")
    odd = {
        q: row.status for q, row in zip(QUALITIES, rows, strict=False) if row.status != "collected"
    }
    assert odd == {"nothing": "nothing", "two notebooks": "refused"}
    assert [row.status for row in rows[30:]] == ["unknown"]
    due = read_assignment(demo / "assignment" / "tiny").due
    late = [q for q, row in zip(QUALITIES, rows, strict=False) if row.arrived and row.arrived > due]
    assert late == ["late", "late mutant"]


def test_each_quality_is_what_it_says(secret, tmp_path):
    def cells(quality):
        (content,) = made(secret, quality).files.values()
        path = tmp_path / "work.ipynb"
        path.write_bytes(content)
        found = read_submission(path, secret)
        return found, {name: "".join(found.answers(name)) for name in ("double", "total", "why")}

    assert cells("full")[1]["double"].endswith("return np.asarray(x) * 2")
    assert "SOLUTION" not in "".join(cells("full")[1].values())
    assert cells("full")[1]["why"] == "YOUR ANSWER HERE"
    assert "every part" in cells("full with text")[1]["why"].lower()
    assert "raise NotImplementedError" in cells("untouched")[1]["double"]
    assert "raise NotImplementedError" in cells("first")[1]["total"]
    assert "bool(len(values))" in cells("mutant 1")[1]["total"]
    assert "** 2" in cells("mutant 2")[1]["double"]
    assert "bool(len(values))" in cells("mutant 3")[1]["total"]  # there are two: from the start
    assert "__eq__" in cells("forged")[1]["double"]
    assert "os._exit" in cells("crash")[1]["total"]
    assert "<script>" in cells("script")[1]["why"]
    assert cells("script")[0].cells[-1].source.startswith("from IPython")
    assert made(secret, "late").hours > 0 > made(secret, "full").hours
    assert made(secret, "nothing").files == {}
    for quality in ("empty", "no notebook"):
        with pytest.raises(Invalid):
            cells(quality)
    (name,) = made(secret, "odd name").files
    assert name.endswith(" ü.ipynb")
    with zipfile.ZipFile(io.BytesIO(made(secret, "zipped").files["work.zip"])) as archive:
        assert archive.namelist() == ["work/tiny.ipynb", "__MACOSX/work/._tiny.ipynb"]
    with pytest.raises(SyntaxError):
        compile(cells("syntax error")[1]["total"], "", "exec")
    (content,) = made(secret, "noisy").files.values()
    nbformat.validate(nbformat.reads(content.decode(), 4))


def test_an_assignment_without_mutants_has_none_to_hand_in(secret):
    secret["mutants"] = {}
    assert "os._exit" in "".join(b.decode() for b in made(secret, "crash").files.values())
    (plain,), (spoilt,) = (made(secret, q).files.values() for q in ("full", "mutant 2"))
    assert plain == spoilt
    secret["cells"] = [c for c in secret["cells"] if c["cell_type"] == "markdown"]
    assert len(made(secret, "crash").files) == 1
    with pytest.raises(InputError, match="no work of quality 'good'"):
        made(secret, "good")


def test_a_smaller_class_and_one_without_a_due_time(source, tmp_path):
    (source / "assignment.yml").write_text("late: 0.1\n")
    write_demo_class(source, tmp_path / "demo", 3)
    assert len(read_roster(tmp_path / "demo" / "roster.csv")) == 3
    assert len(list((tmp_path / "demo" / "inbox").iterdir())) == 4


def test_a_folder_with_something_in_it_is_left_alone(source, tmp_path):
    (tmp_path / "demo").mkdir()
    write_demo_class(source, tmp_path / "demo", 1)
    with pytest.raises(InputError, match="has something in it"):
        write_demo_class(source, tmp_path / "demo", 1)
    for students in (0, 31):
        with pytest.raises(InputError, match="expected 1 to 30"):
            write_demo_class(source, tmp_path / "other", students)
    shutil.rmtree(tmp_path / "demo")
