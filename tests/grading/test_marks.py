import json
from dataclasses import replace

import pytest
from graded_class import RIGHT, SILENT, TOTAL, WHY, write_class, write_work

from segedu.errors import InputError
from segedu.grading.marks import (
    CHANGED,
    ODD,
    UNMARKED,
    Mark,
    digest_of,
    marks_path,
    read_graded,
    read_marks,
    read_one,
    write_marks,
)
from segedu.grading.results import result_path


@pytest.fixture
def graded(tmp_path):
    return write_class(tmp_path / "graded")


def marked(folder, student, question, mark):
    path = result_path(folder, student, "tiny")
    write_marks({question: mark}, marks_path(path))
    return read_one(path)


def test_a_persons_marks_are_added_and_nothing_is_known_before(graded):
    before = next(read_graded(graded))
    assert (before.total, before.so_far, before.waiting) == (None, 5, {"why": UNMARKED})
    assert before.status == "needs-manual"
    after = marked(graded, "ana", "why", Mark(0.5, "Half.", "rm", digest_of("Because.")))
    assert (after.total, after.waiting, after.status) == (5.5, {}, "graded")


def test_an_answer_that_changed_since_waits_again_and_the_mark_is_kept(graded):
    work = marked(graded, "ana", "why", Mark(1, answer=digest_of("Because.")))
    assert work.total == 6
    write_work(graded, "ana", [RIGHT, TOTAL, WHY], answer="Something else.")
    work = read_one(result_path(graded, "ana", "tiny"))
    assert work.waiting == {"why": CHANGED}
    assert work.total is None
    assert work.marks["why"].score == 1


def test_grading_again_keeps_a_persons_marks(graded):
    marked(graded, "ana", "why", Mark(1, answer=digest_of("Because.")))
    write_class(graded)
    assert read_one(result_path(graded, "ana", "tiny")).total == 6


def test_lateness_takes_off_a_persons_marks_too(graded):
    late = [RIGHT, TOTAL, WHY]
    write_work(graded, "eve", late, score=0.0, penalty=5.0, late_days=9, late_cost=5.4)
    work = marked(graded, "eve", "why", Mark(1, answer=digest_of("Because.")))
    assert work.total == pytest.approx(0.6)
    assert work.penalty == 5.4
    never = write_work(graded, "flo", [SILENT], late_days=9, late_cost=5.4)
    assert never.score == 0
    assert read_one(result_path(graded, "flo", "tiny")).total == 0


def test_what_was_odd_is_settled_by_a_persons_marks(graded):
    odd = replace(RIGHT, status="protocol-error", score=0.0)
    write_work(graded, "odd", [odd, TOTAL], status="needs-review")
    work = read_one(result_path(graded, "odd", "tiny"))
    assert work.waiting == {"double_test": ODD}
    assert work.total is None
    work = marked(graded, "odd", "double_test", Mark(2))
    assert (work.total, work.status) == (5, "graded")


def test_what_nobody_graded_has_no_marks_and_what_is_invalid_has_nought(graded):
    works = {w.result.student: w for w in read_graded(graded)}
    assert works["dee"].total is None
    assert works["dee"].raw is None
    half = replace(works["bo"], result=replace(works["bo"].result, score=None))
    assert (half.raw, half.total) == (None, None)
    write_work(graded, "zip", [], status="invalid", score=0.0, reason="the file is empty")
    assert read_one(result_path(graded, "zip", "tiny")).total == 0


def test_a_missing_copy_has_no_answers(graded):
    (graded / "ana" / "tiny.ipynb").unlink()
    assert read_one(result_path(graded, "ana", "tiny")).answers == {}


def test_faulty_files_are_named_and_not_overwritten(graded, tmp_path):
    path = marks_path(result_path(graded, "ana", "tiny"))
    for text in ("{", "[]", '{"schema": "other", "questions": {}}'):
        path.write_text(text)
        with pytest.raises(InputError, match=r"tiny\.manual\.json: cannot be read"):
            read_marks(path)
    with pytest.raises(InputError, match="has no result"):
        list(read_graded(tmp_path))
    result = result_path(graded, "bo", "tiny")
    result.write_text(json.dumps({**json.loads(result.read_text()), "student": "../ana"}))
    with pytest.raises(InputError, match="expected a folder named after the student"):
        read_one(result)
