import csv
import json
from dataclasses import replace

import pytest
from graded_class import RIGHT, SILENT, TOTAL, write_class, write_work

from segedu.grading.export_grades import (
    NBGRADER,
    export_csv,
    export_gradescope,
    export_nbgrader,
    split_name,
)
from segedu.grading.manual import give
from segedu.grading.marks import read_graded
from segedu.grading.roster import Person

ROSTER = {
    "ana": Person("ana", "Ana María Pérez", "ana@example.org"),
    "bo": Person("bo", '=HYPERLINK("http://a.example") Bo', "bo@example.org"),
    "gus": Person("gus", "Gus, Van", "gus@example.org"),
}


@pytest.fixture
def graded(tmp_path):
    return write_class(tmp_path / "graded")


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_column_for_each_question_and_nothing_for_the_unknown(graded, tmp_path):
    done = export_csv(read_graded(graded), tmp_path / "g.csv", ROSTER)
    table = {row["student"]: row for row in rows(tmp_path / "g.csv")}
    assert table["bo"]["marks"] == "3"
    assert table["bo"]["name"].startswith("'=HYPERLINK")
    assert [table["cem"][n] for n in ("marks", "penalty", "late_days", "total_test")] == [
        *("3.5", "0.5", "1", "2")
    ]
    assert [table["ana"][n] for n in ("marks", "why", "double_test")] == ["", "", "2"]
    assert (table["dee"]["marks"], table["dee"]["double_test"]) == ("", "")
    assert (table["gus"]["marks"], table["gus"]["status"]) == ("", "")
    assert done.written == 2
    assert done.unknown == {
        "ana": "why: a person marks it",
        "dee": "no sandbox",
        "gus": "has no result",
    }


def test_nbgraders_columns_are_those_of_its_own_export(graded, tmp_path):
    give(graded, "ana", "why", 1)
    write_work(graded, "eve", [RIGHT, SILENT], due="2026-12-01", arrived="2026-12-02", most=3.0)
    done = export_nbgrader(read_graded(graded), tmp_path / "g.csv", ROSTER)
    table = rows(tmp_path / "g.csv")
    assert tuple(table[0]) == NBGRADER
    assert len(NBGRADER) == 11
    by_student = {row["student_id"]: list(row.values()) for row in table}
    assert by_student["ana"] == [
        *("tiny", "", "", "ana", "Pérez", "Ana María", "ana@example.org", "6", "0", "6", "6")
    ]
    assert by_student["cem"][-4:] == ["4", "0.5", "3.5", "6"]
    assert by_student["eve"][1:3] == ["2026-12-01", "2026-12-02"]
    assert by_student["dee"][-4:] == ["", "", "", "6"]
    assert by_student["gus"][3:] == ["gus", "Gus", "Van", "gus@example.org", "", "", "", ""]
    assert set(done.unknown) == {"dee", "gus"}


def test_gradescope_gets_a_file_for_each_known_grade(graded, tmp_path):
    give(graded, "ana", "why", 0.5, "Half <b>.")
    done = export_gradescope(read_graded(graded), tmp_path / "out")
    assert (done.written, set(done.unknown)) == (3, {"dee"})
    assert not (tmp_path / "out" / "dee").exists()
    ana = json.loads((tmp_path / "out" / "ana" / "results.json").read_text())
    assert (ana["score"], ana["output_format"], ana["stdout_visibility"]) == (5.5, "text", "hidden")
    assert ana["tests"][2] == {
        "name": "why",
        "score": 0.5,
        "max_score": 1,
        "status": "failed",
        "output": "Half <b>.",
    }
    assert ana["tests"][0]["status"] == "passed"
    cem = json.loads((tmp_path / "out" / "cem" / "results.json").read_text())
    assert (cem["score"], cem["output"]) == (3.5, "1 days late: 0.5 marks less")
    text = (tmp_path / "out" / "bo" / "results.json").read_text()
    assert "RAISED-SECRET" not in text
    assert "[1, 4]" not in text


def test_a_person_on_the_roster_without_a_result_has_no_grade(graded, tmp_path):
    works = [w for w in read_graded(graded) if w.result.student == "bo"]
    assert export_csv(works, tmp_path / "g.csv", ROSTER).unknown == {
        "ana": "has no result",
        "gus": "has no result",
    }
    assert export_csv([], tmp_path / "g.csv").written == 0
    assert export_nbgrader([], tmp_path / "g.csv", ROSTER).written == 0


def test_a_status_without_words_still_says_why(graded):
    work = next(w for w in read_graded(graded) if w.result.student == "dee")
    from segedu.grading.export_grades import why_unknown

    nameless = replace(work, result=replace(work.result, reason=""))
    assert why_unknown(nameless) == "infrastructure"
    assert why_unknown(work) == "no sandbox"
    assert TOTAL.most == 3


@pytest.mark.parametrize(
    ("name", "parts"),
    [("Ana", ("Ana", "")), ("", ("", "")), (" Li Wenxuan ", ("Wenxuan", "Li"))],
)
def test_names_are_split_at_the_last_word(name, parts):
    assert split_name(name) == parts
