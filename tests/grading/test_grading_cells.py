import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from segedu.errors import InputError
from segedu.grading import cells

ABOUT = {
    "schema_version": 3,
    "grade": True,
    "solution": False,
    "locked": True,
    "task": False,
    "grade_id": "q1",
    "points": 2,
}


def cell(source="assert f(1) == 2", **about):
    return new_code_cell(source, metadata={"nbgrader": {**ABOUT, **about}})


def test_the_checksum_is_the_one_that_nbgrader_computes():
    # computed with nbgrader 0.9.6, nbgrader.utils.compute_checksum
    assert cells.checksum(cell()) == "2d4ea0cff05ad306581407803bee7283"
    solution = cell("def f(x): ...", grade=False, solution=True, locked=False)
    assert cells.checksum(solution) == "013b1a84db86823e70a22e5fb139aa1a"


def test_a_cell_of_tests_is_graded_code_that_is_no_answer():
    assert cells.is_test(cell())
    assert not cells.is_test(cell(solution=True))
    assert not cells.is_test(new_markdown_cell("x", metadata={"nbgrader": ABOUT}))
    assert not cells.is_test(new_code_cell("x"))


def test_a_person_marks_answers_that_are_graded_themselves_and_tasks():
    assert cells.is_manual(cell(solution=True))
    assert cells.is_manual(cell(grade=False, task=True))
    assert not cells.is_manual(cell())


def test_answers_are_open_and_tests_are_locked():
    assert cells.is_locked(cell())
    assert cells.is_locked(cell(grade=False))
    assert not cells.is_locked(cell(solution=True))
    assert not cells.is_locked(cell(grade=False, locked=False))


def test_a_region_becomes_the_stub_at_its_own_indentation():
    source = (
        "def f(x):\n    ### BEGIN SOLUTION\n    y = x\n    return y\n    ### END SOLUTION\nz = 1"
    )
    assert cells.without(source, cells.SOLUTION, cells.CODE_STUB) == (
        "def f(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()\nz = 1"
    )
    assert cells.without(source, cells.SOLUTION) == "def f(x):\nz = 1"
    assert cells.without(source, cells.HIDDEN_TESTS) == source


def test_two_regions_are_both_taken_out():
    source = "a\n# BEGIN HIDDEN TESTS\nb\n# END HIDDEN TESTS\nc\n# BEGIN HIDDEN TESTS\n# END HIDDEN TESTS"
    assert cells.without(source, cells.HIDDEN_TESTS) == "a\nc"
    assert cells.regions(source, cells.HIDDEN_TESTS) == [range(1, 4), range(5, 7)]


def test_a_cell_without_regions_is_a_stub_as_a_whole():
    assert cells.stub(cell("x = 1", solution=True)) == cells.CODE_STUB
    assert cells.stub(new_markdown_cell("so")) == cells.TEXT_STUB


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("### BEGIN SOLUTION\nx", "line 1: BEGIN SOLUTION has no END"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "line 2: a second BEGIN"),
    ],
)
def test_a_region_that_does_not_end_or_begins_twice_is_refused(source, said):
    with pytest.raises(InputError, match=said):
        cells.regions(source, cells.SOLUTION)
