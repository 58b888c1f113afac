import csv

import pytest
from graded_class import RIGHT, TOTAL, WHY, write_class, write_work

from segedu.errors import InputError
from segedu.grading.manual import COLUMNS, give, take_sheet, waiting, write_sheet
from segedu.grading.marks import read_graded, read_one
from segedu.grading.results import result_path


@pytest.fixture
def graded(tmp_path):
    return write_class(tmp_path / "graded")


def rows(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write(path, lines, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
        table.writeheader()
        table.writerows(lines)
    return path


def test_what_waits_for_a_person_is_shown_with_the_answer(graded):
    assert [(w.student, w.question, w.most, w.answer) for w in waiting(graded)] == [
        ("ana", "why", 1, "Because.")
    ]


def test_marks_are_given_one_by_one_and_replace_those_before(graded):
    give(graded, "ana", "why", 0.5, "Half.", "rm")
    give(graded, "ana", "why", 1, "All.")
    mark = next(read_graded(graded)).marks["why"]
    assert (mark.score, mark.comment, mark.grader) == (1, "All.", "")
    assert list(waiting(graded)) == []


def test_marks_for_one_answer_leave_those_for_another(graded):
    give(graded, "ana", "why", 1)
    give(graded, "ana", "double_test", 1.5)
    assert {n: m.score for n, m in next(read_graded(graded)).marks.items()} == {
        "why": 1,
        "double_test": 1.5,
    }


@pytest.mark.parametrize("marks", [-0.5, 1.5, float("nan"), float("inf")])
def test_marks_that_there_are_not_are_refused(graded, marks):
    with pytest.raises(InputError, match=r"ana why: .* marks; expected 0 to 1"):
        give(graded, "ana", "why", marks)
    assert not (graded / "ana" / "tiny.manual.json").exists()


@pytest.mark.parametrize(("student", "question"), [("nobody", "why"), ("ana", "nothing")])
def test_a_student_or_question_that_is_not_there_is_refused(graded, student, question):
    with pytest.raises(InputError, match="0 results"):
        give(graded, student, question, 1)


def test_a_table_goes_out_and_comes_back_with_marks(graded, tmp_path):
    write_work(graded, "eve", [RIGHT, TOTAL, WHY], answer="=HYPERLINK(1)")
    assert write_sheet(graded, tmp_path / "marks.csv") == 2
    first, second = rows(tmp_path / "marks.csv")
    assert (first["student"], first["marks"], first["answer"]) == ("ana", "", "Because.")
    assert second["answer"] == "'=HYPERLINK(1)"
    first.update(marks="0,5", comment="'=half", grader="rm")
    assert take_sheet(graded, write(tmp_path / "back.csv", [first, second], ";")) == 1
    mark = read_one(result_path(graded, "ana", "tiny")).marks["why"]
    assert (mark.score, mark.comment, mark.grader) == (0.5, "=half", "rm")
    write_sheet(graded, tmp_path / "marks.csv")
    again = rows(tmp_path / "marks.csv")[0]
    assert (again["marks"], again["comment"]) == ("0.5", "'=half")
    assert [w.student for w in waiting(graded)] == ["eve"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"marks": "two"}, "line 3: marks are 'two'; expected a number"),
        ({"marks": "2"}, "line 3: 2 marks; expected 0 to 1"),
        ({"student": "nobody"}, "line 3: there is no 'nobody tiny why'"),
        ({"question": "nothing"}, "there is no 'eve tiny nothing'"),
        ({"id": ""}, "the answer has changed since"),
    ],
)
def test_one_wrong_row_and_nothing_is_written(graded, tmp_path, change, message):
    write_work(graded, "eve", [RIGHT, TOTAL, WHY])
    write_sheet(graded, tmp_path / "marks.csv")
    table = [{**row, "marks": "1"} for row in rows(tmp_path / "marks.csv")]
    table[1].update(change)
    with pytest.raises(InputError, match=message):
        take_sheet(graded, write(tmp_path / "back.csv", table))
    assert not list(graded.glob("*/*.manual.json"))


def test_a_mark_whose_answer_changed_is_to_be_given_again(graded, tmp_path):
    give(graded, "ana", "why", 1, "Good.")
    write_work(graded, "ana", [RIGHT, TOTAL, WHY], answer="New.")
    write_sheet(graded, tmp_path / "marks.csv")
    (row,) = rows(tmp_path / "marks.csv")
    assert (row["marks"], row["comment"], row["answer"]) == ("", "Good.", "New.")


def test_another_table_is_refused(graded, tmp_path):
    (tmp_path / "other.csv").write_text("student,marks\nana,1\n")
    with pytest.raises(InputError, match="has no column answer, assignment"):
        take_sheet(graded, tmp_path / "other.csv")
