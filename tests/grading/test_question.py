import resource
import threading

import pytest
from tiny_assignment import FULL, outcome

from segedu.grading import question as module
from segedu.grading.bridge import Ended
from segedu.grading.question import HIDDEN, VISIBLE, run_own
from segedu.grading.selftest import selftest


def test_what_fails_a_visible_test_is_told_why(verdict_of):
    verdict = verdict_of({"double": "def double(x): return x"})
    first = verdict.questions[0]
    assert (first.status, first.score) == ("fail", 0)
    assert first.message == "1 and 2 become 2 and 4"


def test_a_hidden_test_tells_the_student_nothing_but_its_literal_message(verdict_of):
    shape = verdict_of(
        {"double": "def double(x): return [2 * v for v in x] if type(x) is list else None"}
    ).questions[0]
    assert shape.message == "arrays of any shape are doubled"
    assert "TypeError" in shape.detail
    wrong = verdict_of(
        {"double": "def double(x): return np.asarray(x) * 2 if np.ndim(x) else -1"}
    ).questions[0]
    assert wrong.message == HIDDEN
    assert "-17.25" not in wrong.message
    assert "-17.25" in wrong.detail
    flat = verdict_of(
        {"double": "def double(x): return np.ravel(x) * 2 if np.ndim(x) < 2 else 0"}
    ).questions[0]
    assert flat.message == "arrays of any shape are doubled"


def test_code_that_has_seen_hidden_tests_cannot_pass_them_out_in_an_error(verdict_of):
    spy = "seen = []\ndef double(x):\n    seen.append(x)\n    return np.asarray(x) * 2"
    verdict = verdict_of({"double": spy, "total": "def total(v): raise ValueError(str(seen))"})
    second = verdict.questions[1]
    assert (second.status, second.message) == ("fail", VISIBLE)
    assert "-17.25" in second.detail  # which is the instructor's


def test_partial_credit_is_what_the_tests_end_in(verdict_of):
    verdict = verdict_of({"total": "def total(v): return float(sum(v)) if len(v) else None"})
    assert outcome(verdict)["total_test"] == ("partial", 2)


def test_a_name_of_the_tests_own_does_not_stand_in_for_a_missing_answer(verdict_of, secret):
    cell = next(c for c in secret["cells"] if c["id"] == "double_test")
    cell["source"] = "total = sum\n" + cell["source"]
    assert outcome(verdict_of({"total": "x = 1"}))["total_test"] == ("fail", 0)


@pytest.mark.parametrize(
    ("last", "said"),
    [("marks + 9", "give 12"), ("marks - 9", "give -6"), ("'all'", "end in 'all'")],
)
def test_marks_out_of_range_are_the_authors_fault(secret, sandboxed, last, said):
    cell = next(c for c in secret["cells"] if c["id"] == "total_test")
    cell["source"] = cell["source"].removesuffix("marks") + last
    assert said in next(selftest(secret)).fault


def test_a_test_that_goes_on_over_a_students_value_is_ended(verdict_of, secret):
    secret["limits"]["cell_seconds"] = 0.5
    cell = next(c for c in secret["cells"] if c["id"] == "total_test")
    cell["source"] = "n = total([1])\nwhile n == 1: pass"
    assert outcome(verdict_of())["total_test"] == ("timeout", 0)


def test_in_another_thread_a_test_has_no_such_limit(verdict_of, secret):
    got = []
    thread = threading.Thread(target=lambda: got.append(outcome(verdict_of())))
    thread.start()
    thread.join()
    assert got == [FULL]


def test_a_students_np_does_not_reach_the_tests(verdict_of):
    forged = "class np:\n    @staticmethod\n    def allclose(*a): return True\n    asarray = None\ndef double(x): return 'no'"
    assert outcome(verdict_of({"double": forged}))["double_test"] == ("fail", 0)


def test_the_line_of_a_failure_is_found_in_the_tests_own_source():
    with pytest.raises(AssertionError) as caught:
        run_own("x = 1\ndef f():\n    assert x == 2, 'two'\nf()", {}, "q")
    assert module._line_of(caught.value, "q") == 3
    assert module._literal_message("assert x, f'{x}'", 1) == ""
    assert module._explained(Ended("x"), "1", "q") == (VISIBLE, "line 1: Ended: x")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("np.array([3])", ("partial", 1)),
        ("np.array([3, 0, 2])", ("partial", 1)),
        ("np.array([3, 5])", ("fail", 0)),
        ("np.zeros(0)", ("fail", 0)),
        ("np.full((2, 2), 3)", ("partial", 1)),
    ],
)
def test_an_array_for_a_number_costs_its_question_and_never_the_batch(verdict_of, answer, expected):
    got = outcome(verdict_of({"total": f"def total(v): return {answer}"}))
    assert got == {**FULL, "total_test": expected}


def test_an_empty_answer_is_close_to_nothing(verdict_of):
    got = outcome(verdict_of({"double": "def double(x): return np.zeros((0, 1, 1))"}))
    assert got == {**FULL, "double_test": ("fail", 0)}


def test_an_answer_that_is_slow_again_and_again_costs_one_question(verdict_of, secret):
    slow = "import time\ndef double(x):\n    time.sleep(1.5)\n    return np.asarray(x) * 2"
    assert outcome(verdict_of({"double": slow})) == {**FULL, "double_test": ("timeout", 0)}


def test_a_small_answer_that_broadcasts_to_much_is_wrong_and_takes_no_more(verdict_of, secret):
    cell = next(c for c in secret["cells"] if c["id"] == "total_test")
    cell["source"] = "assert np.allclose(total([1, 2]), np.full(500, 3.0))"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = "def total(v): return np.full((16 * 2**20, 1), 3, dtype='uint8')"
    verdict = verdict_of({"total": answer})
    assert "Unable to allocate" in verdict.questions[1].detail
    assert outcome(verdict) == {**FULL, "total_test": ("fail", 0)}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**22
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
