import pytest

from segedu.errors import InputError
from segedu.grading import selftest as module
from segedu.grading.question import Question
from segedu.grading.selftest import replaced, selftest
from segedu.grading.verdict import Verdict


def test_a_sound_assignment_passes_its_self_test(secret, sandboxed):
    trials = list(selftest(secret))
    assert [trial.fault for trial in trials] == [""] * 4
    assert [(trial.score, trial.most) for trial in trials] == [(5, 5), (0, 6), (2, 5), (3, 5)]


def test_tests_that_pass_without_an_answer_are_a_fault(secret, sandboxed):
    next(c for c in secret["cells"] if c["id"] == "double_test")["source"] = "assert True"
    untouched = next(trial for trial in selftest(secret) if trial.name == "untouched")
    assert (untouched.score, untouched.fault) == (2, "expected no marks")


def test_a_mutant_that_nothing_tells_from_the_solution_is_a_fault(secret, sandboxed):
    secret["mutants"] = {"Nothing is wrong.": "def total(v): return float(sum(v))"}
    assert list(selftest(secret))[-1].fault == "expected fewer"


def test_a_failing_cell_without_marks_is_named_where_the_solution_fails(secret, sandboxed):
    setup = next(cell for cell in secret["cells"] if cell["id"] == "setup")
    setup["source"] = "import nothing_of_that_name"
    solution = next(selftest(secret))
    assert "; a cell without marks: ModuleNotFoundError: No module named" in solution.fault


def test_answers_that_hang_on_chance_are_a_fault(secret, monkeypatch):
    scores = iter([1.0, 0.0] * 9)
    monkeypatch.setattr(
        module,
        "judge_notebook",
        lambda *_, **__: Verdict([Question("q", "pass", next(scores), 1.0)]),
    )
    assert next(selftest(secret)).fault == "twice the same answers, and not twice the same marks"


def test_a_mutant_stands_for_exactly_one_answer(secret):
    assert replaced(secret, "def total(v): pass") == "total"
    for source in ("x = 1", "def total(v): pass\ndef double(x): pass"):
        with pytest.raises(InputError, match="expected one"):
            replaced(secret, source)
