import time

import pytest
from nbformat.v4 import new_code_cell
from tiny_assignment import FULL, outcome

from segedu.grading.bridge import SandboxFailed
from segedu.grading.keys import answered
from segedu.grading.notebook_file import plain_cells
from segedu.grading.submission import match
from segedu.grading.verdict import judge


def test_the_solution_has_full_marks_and_the_rest_waits_for_a_person(verdict_of):
    verdict = verdict_of()
    assert outcome(verdict) == FULL
    assert verdict.score == 5
    assert verdict.raised == []


def test_the_untouched_release_has_no_response_and_no_marks(verdict_of, secret):
    stubs = {
        c["nbgrader"]["grade_id"]: c["released"]
        for c in secret["cells"]
        if c["nbgrader"].get("solution")
    }
    verdict = verdict_of(stubs)
    assert {q.status for q in verdict.questions} == {"no-response"}
    assert verdict.score == 0


def test_a_missing_name_an_error_and_a_syntax_error_cost_their_question_only(verdict_of):
    for answer in ("x = 1", "def double(x): return 1 / 0", "def double(x:", "double = 3"):
        got = outcome(verdict_of({"double": answer}))
        assert got == {**FULL, "double_test": ("fail", 0)}


def test_a_cell_of_the_authors_that_shows_an_answer_is_not_run_outside(verdict_of, secret, capsys):
    cell = {
        "cell_type": "code",
        "source": "print(double(3))\n1 / 0",
        "released": "",
        "nbgrader": {},
    }
    secret["cells"].insert(4, {"id": "demo", **cell})
    assert outcome(verdict_of()) == FULL
    slow = outcome(verdict_of({"double": "def double(x):\n    while True: pass"}))
    assert slow == {**FULL, "double_test": ("timeout", 0)}
    assert capsys.readouterr().out == ""


def test_a_name_of_an_earlier_run_is_not_there_any_more(verdict_of):
    got = outcome(verdict_of({"total": "del double"}))
    assert got["double_test"] == ("pass", 2)
    assert got["total_test"] == ("fail", 0)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("import os\ndef double(x): os._exit(0)", "crash"),
        ("def double(x):\n    while True: pass", "timeout"),
        ("import sys\ndef double(x): sys.exit(0)", "fail"),
        ("def double(x): return double(x)", "fail"),
        ("import os\nos._exit(0)", "fail"),
        ("while True: pass", "fail"),
    ],
)
def test_one_crash_or_endless_loop_costs_one_question(verdict_of, answer, status):
    assert outcome(verdict_of({"double": answer})) == {**FULL, "double_test": (status, 0)}


def test_a_cell_that_ends_the_process_is_left_out_when_the_others_are_run_again(verdict_of):
    def change(notebook):
        notebook.cells.insert(2, new_code_cell("import os\nos._exit(3)"))

    verdict = verdict_of(change=change)
    assert outcome(verdict) == FULL
    assert verdict.raised == ["cell 3 crash"]


def test_cells_that_end_the_process_one_after_another_have_the_notebooks_time(verdict_of, secret):
    secret["limits"]["notebook_seconds"] = 2
    begun = time.monotonic()

    def change(notebook):
        ends = [new_code_cell(f"import os\nos._exit({n})") for n in range(200)]
        notebook.cells[2:2] = ends

    verdict = verdict_of(change=change)
    assert outcome(verdict)["double_test"] == ("timeout", 0)
    assert time.monotonic() - begun < 20


def test_cells_of_tests_are_not_run_among_the_students_own(verdict_of):
    verdict = verdict_of({"double": "def double(x): return x"})
    assert outcome(verdict)["double_test"] == ("fail", 0)
    assert verdict.raised == []


def test_noise_and_errors_in_other_cells_cost_nothing(verdict_of):
    def change(notebook):
        notebook.cells.insert(2, new_code_cell("import sys\nprint('x', file=sys.stderr)\n1 / 0"))

    verdict = verdict_of(change=change)
    assert outcome(verdict) == FULL
    assert verdict.raised == ["cell 3 ZeroDivisionError: division by zero"]


MAGIC = [
    "%matplotlib inline",
    "%matplotlib widget",
    "%matplotlib qt\n%load_ext autoreload\n%autoreload 2",
    "%%time",
    "%%capture out",
    "%config InlineBackend.figure_format = 'retina'",
    "!ls\n%pwd\n?np\nget_ipython().run_line_magic('matplotlib', 'inline')",
    "await __import__('asyncio').sleep(0)",
]


@pytest.mark.parametrize("magic", MAGIC)
def test_what_a_notebook_has_of_magic_costs_nothing(verdict_of, secret, magic):
    secret["limits"].update(cell_seconds=20, notebook_seconds=60)  # to import matplotlib
    answer = f"{magic}\ndef double(x): return np.asarray(x) * 2"
    assert outcome(verdict_of({"double": answer})) == FULL


def test_a_module_that_a_cell_writes_can_be_imported(verdict_of):
    def change(notebook):
        module = "%%writefile twice.py\ndef twice(x): return x * 2"
        notebook.cells.insert(2, new_code_cell(module))

    answer = "from twice import twice\ndef double(x): return twice(np.asarray(x))"
    assert outcome(verdict_of({"double": answer}, change=change)) == FULL


def test_what_was_written_into_locked_cells_runs_and_does_not_stand_in_for_them(verdict_of):
    def change(notebook):
        setup, answer, test = notebook.cells[1:4]
        setup.source += "\nimport math"
        test.source = "def double(x): return math.fabs(2) * np.asarray(x)\n" + test.source
        answer.source = "# YOUR CODE HERE\nraise NotImplementedError()"

    def forge(notebook):
        notebook.cells[3].source = "np.allclose = lambda *a: True\ndouble = lambda x: 0"

    assert outcome(verdict_of(change=change)) == FULL
    assert outcome(verdict_of(change=forge)) == {**FULL, "double_test": ("fail", 0)}


def test_cells_in_another_order_count_all_the_same(verdict_of):
    def change(notebook):
        notebook.cells.insert(2, notebook.cells.pop(3))  # the test before the answer

    assert outcome(verdict_of(change=change)) == FULL


def test_a_deleted_test_is_run_and_a_deleted_answer_has_no_marks(verdict_of):
    def change(notebook):
        del notebook.cells[5], notebook.cells[2]

    verdict = verdict_of(change=change)
    assert outcome(verdict) == {**FULL, "double_test": ("no-response", 0)}


def test_all_cells_together_have_a_limit(verdict_of, secret):
    secret["limits"]["notebook_seconds"] = 1
    slow = "import time\ntime.sleep(0.7)"

    def change(notebook):
        notebook.cells[2:2] = [new_code_cell(slow), new_code_cell(slow)]

    got = outcome(verdict_of(change=change))
    assert got["double_test"] == ("timeout", 0)
    assert got["total_test"] == ("timeout", 0)


def test_no_sandbox_is_no_verdict(secret):
    def none():
        raise SandboxFailed("there is none")

    with pytest.raises(SandboxFailed):
        judge(secret, match(plain_cells(answered(secret)), secret), none)


def test_a_task_is_marked_by_a_person_whatever_was_written(verdict_of, secret):
    about = {
        "grade_id": "essay",
        "grade": False,
        "solution": False,
        "task": True,
        "points": 4,
        "locked": True,
    }
    secret["cells"].append(
        {
            "id": "essay",
            "cell_type": "markdown",
            "source": "Write.",
            "released": "Write.",
            "nbgrader": about,
        }
    )
    assert outcome(verdict_of())["essay"] == ("manual", None)


def test_twice_the_same_submission_has_the_same_verdict(verdict_of):
    first, second = (verdict_of({"total": "def total(v): return 3"}) for _ in range(2))
    assert outcome(first) == outcome(second)
