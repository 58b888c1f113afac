from dataclasses import replace

import pytest
from graded_class import PART, RIGHT, SILENT, SOLUTION, SQUARES, TOTAL, TRIALS, WHY, WRONG

from segedu.errors import InputError
from segedu.grading.behaviour import (
    behaviours_path,
    misconceptions,
    read_behaviours,
    write_behaviours,
)
from segedu.grading.selftest import Trial

SENTENCE = SQUARES.name
DEEP = Trial(
    "It spreads.", 2, 5, "", (WRONG, replace(TOTAL, status="fail", score=0, detail="d"), WHY)
)


@pytest.mark.parametrize(
    ("questions", "met"),
    [
        ([WRONG, TOTAL, WHY], [SENTENCE]),
        ([WRONG, PART, SILENT], [SENTENCE]),  # other questions are not the mutant's
        ([RIGHT, TOTAL, WHY], []),
        ([replace(WRONG, detail="line 1: [2, 3]"), TOTAL, WHY], []),
        ([replace(WRONG, status="timeout"), TOTAL], []),
        ([replace(WRONG, score=1.0), TOTAL], []),
        ([replace(WRONG, seconds=9.0, message="other")], [SENTENCE]),
        ([], []),
        ([replace(WRONG, status="no-response", detail="")], []),
    ],
)
def test_an_answer_behaves_like_a_mutant_if_all_that_sets_it_apart_is_the_same(questions, met):
    assert misconceptions(questions, TRIALS) == met


def test_a_mutant_that_spoils_two_questions_is_met_in_both_as_far_as_they_are_answered():
    both = [SOLUTION, DEEP]
    failed = DEEP.questions[1]
    assert misconceptions([WRONG, failed, WHY], both) == ["It spreads."]
    unanswered = replace(failed, status="no-response", detail="")
    assert misconceptions([WRONG, unanswered], both) == ["It spreads."]
    assert misconceptions([WRONG, TOTAL], both) == []
    assert misconceptions([unanswered, failed], both) == []


def test_mutants_that_cannot_be_told_apart_are_both_named():
    twin = replace(SQUARES, name="Or else.")
    assert misconceptions([WRONG, TOTAL], [*TRIALS, twin]) == [SENTENCE, "Or else."]


def test_without_a_solution_nothing_is_named():
    assert misconceptions([WRONG], [SQUARES]) == []
    assert misconceptions([RIGHT], [SOLUTION, replace(SOLUTION, name="the same")]) == []


def test_what_the_self_test_saw_is_kept(tmp_path):
    assert read_behaviours(tmp_path, "tiny") == []
    path = write_behaviours(TRIALS, "tiny", tmp_path)
    assert path == behaviours_path(tmp_path, "tiny")
    assert read_behaviours(tmp_path, "tiny") == TRIALS
    for text in ("{", "[]", '{"schema": "other"}', '{"schema": "segedu.selftest/1"}'):
        path.write_text(text)
        with pytest.raises(InputError, match=r"tiny\.selftest\.json: cannot be read"):
            read_behaviours(tmp_path, "tiny")
