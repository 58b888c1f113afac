"""Submissions of students who mean no harm, as the design's list has them, against the sandbox."""

import json

import nbformat
import pytest
from hostile_class import (
    NOTHING,
    Case,
    check,
    check_batch,
    double,
    grade_again,
    grade_all,
    invalid,
    told,
)
from nbformat.v4 import new_code_cell, new_markdown_cell
from tiny_assignment import FULL, outcome

from segedu.grading.assignment import Limits
from segedu.grading.bridge import Bridge
from segedu.grading.keys import answered, read_key
from segedu.grading.notebook_file import plain_cells
from segedu.grading.submission import match
from segedu.grading.verdict import judge

pytestmark = pytest.mark.usefixtures("sandboxed")


def untouch(notebook):
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = "# YOUR CODE HERE\nraise NotImplementedError()"
            if cell.cell_type == "markdown":
                cell.source = "YOUR ANSWER HERE"


def as_released(folder, secret):
    stubs = {
        c["nbgrader"]["grade_id"]: c["released"]
        for c in secret["cells"]
        if c["nbgrader"].get("solution")
    }
    nbformat.write(answered(secret, stubs), folder / "tiny.ipynb")


def strip(notebook):
    notebook.metadata.clear()
    for number, cell in enumerate(notebook.cells):
        cell.metadata.clear()
        cell["id"] = f"x{number}"


def edit_tests(notebook):
    for cell in notebook.cells:
        about = cell.metadata.get("nbgrader", {})
        if about.get("grade") and cell.cell_type == "code":
            cell.source = "100"
            about["points"] = 100


def reorder(notebook):
    cells = notebook.cells
    cells[2], cells[4] = cells[4], cells[2]
    cells[3], cells[5] = cells[5], cells[3]


def duplicate(notebook):
    notebook.cells.insert(2, new_code_cell("def double(x): return 0"))
    notebook.cells.insert(4, notebook.cells[3].copy())
    notebook.cells[4]["id"] = "copy"


def add(notebook):
    notebook.cells.insert(2, new_markdown_cell("notes"))
    notebook.cells.insert(3, new_code_cell("import math\nmath.pi"))
    notebook.cells.append(new_code_cell("double(3)"))


def delete(notebook):
    del notebook.cells[4], notebook.cells[3]


def format_3(folder, secret):
    old = nbformat.convert(answered(secret), 3)
    (folder / "tiny.ipynb").write_text(json.dumps(old))


def changed(change):
    """A file whose JSON is changed after it was written."""

    def write(folder, secret):
        path = folder / "tiny.ipynb"
        given = json.loads(nbformat.writes(answered(secret)))
        change(given)
        path.write_text(json.dumps(given))

    return write


def without_ids(given):
    given["nbformat_minor"] = 4
    for cell in given["cells"]:
        cell.pop("id", None)


def foreign_kernel(given):
    given["metadata"]["kernelspec"] = {"name": "ir", "display_name": "R", "language": "R"}
    given["metadata"]["language_info"] = {"name": "R"}


def stored_outputs(given):
    text = "x" * (50 * 2**20)
    given["cells"][2]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text}]


def named(*names):
    """The notebook under other names."""

    def write(folder, secret):
        for name in names:
            nbformat.write(answered(secret), folder / name)

    return write


CASES = {
    "correct": Case("a correct answer has full marks"),
    "untouched": Case(
        "an untouched notebook has no response and no marks",
        write=as_released,
        status="graded",
        questions={**NOTHING, "why": ("no-response", 0)},
    ),
    "wrong": double("def double(x): return x", says="a wrong answer has no marks"),
    "hidden": double(
        "def double(x): return [2 * v for v in x]",
        says="right for the visible and wrong for the hidden tests is wrong",
    ),
    "noisy": Case(
        "noise and warnings on stderr cost nothing",
        cells=("import sys, warnings\nprint('noise' * 99, file=sys.stderr)\nwarnings.warn('odd')",),
        copy="noisenoise",
    ),
    "syntax": double("def double(x) return x", says="a syntax error costs its own question"),
    "loop-cell": Case(
        "an endless loop in a cell costs nothing that is right besides",
        cells=("while True: pass",),
        copy="the cell took too long",
    ),
    "loop-function": double(
        "def double(x):\n    while len(x) == 2 or True: pass",
        says="an endless loop in a tested function is a time-out of its question",
        result="timeout",
    ),
    "recursion": double("def double(x): return double(x)", says="endless recursion is a failure"),
    "memory": double(
        """
        def double(x):
            hog = []
            while True:
                hog.append(np.empty(2**28, dtype="uint8"))
        """,
        says="a memory hog costs its own question",
    ),
    "exit": double(
        "import os\ndef double(x): os._exit(0)",
        says="os._exit in a function is a crash of its question",
        result="crash",
    ),
    "exit-cell": Case(
        "os._exit in a cell does not stop what comes after",
        cells=("import os\nos._exit(0)",),
        copy="not run",
    ),
    "segfault": double(
        "import ctypes\ndef double(x): return ctypes.string_at(0)",
        says="a segmentation fault is a crash of its question",
        result="crash",
    ),
    "sys-exit": Case(
        "sys.exit(0) in a cell costs nothing and hides nothing",
        {"total": "def total(v): return 7"},
        cells=("import sys\nsys.exit(0)",),
        questions={"total_test": ("fail", 0)},
    ),
    "system-exit": double(
        "def double(x): raise SystemExit(0)", says="SystemExit in a tested function is a failure"
    ),
    "input": double("def double(x): return input('?')", says="input() is an error, and no wait"),
    "shell": Case(
        "pip, rm -rf and bash reach nothing, and cost nothing",
        cells=(
            "%pip install numpy",
            "!rm -rf ~ /tmp/* 2>/dev/null",
            "%%bash\nrm -rf / 2>/dev/null",
        ),
    ),
    "paths": double(
        "def double(x): return np.load('/home/me/Documents/weights.npy')",
        says="a path of the student's own machine is a failure",
    ),
    "package": Case(
        "a package that is not there costs the cell that wants it",
        cells=("import package_of_mine",),
        copy="ModuleNotFoundError",
    ),
    "reordered": Case("questions in another order count all the same", change=reorder),
    "duplicated": Case("of two cells that answer the same the last counts", change=duplicate),
    "extra": Case("cells of the student's own cost nothing", change=add),
    "deleted": Case(
        "a deleted answer has no marks and a deleted test is run all the same",
        change=delete,
        questions={"total_test": ("no-response", 0)},
    ),
    "stripped": Case("a notebook without any metadata is read by what it defines", change=strip),
    "edited": Case(
        "edited tests and points are restored",
        {"double": "def double(x): return x"},
        change=edit_tests,
        questions={"double_test": ("fail", 0)},
    ),
    "format-3": Case("a notebook of format 3 is read", write=format_3),
    "no-ids": Case("a notebook without ids is read", write=changed(without_ids)),
    "kernel": Case("a kernel that is not here is no fault", write=changed(foreign_kernel)),
    "truncated": invalid("truncated JSON is invalid", b'{"cells": [{"cell_ty', "no JSON"),
    "utf-16": invalid("UTF-16 is invalid", '{"cells": []}'.encode("utf-16"), "not UTF-8"),
    "merge": invalid(
        "merge markers are invalid", b"{\n<<<<<<< HEAD\n}", "a merge that was not finished"
    ),
    "pdf": invalid("a PDF named .ipynb is invalid", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "not UTF-8"),
    "two": Case(
        "two notebooks are invalid",
        write=named("a.ipynb", "b.ipynb"),
        status="invalid",
        reason="there are 2 notebooks",
    ),
    "none": Case(
        "no notebook is invalid",
        write=lambda folder, _: (folder / "notes.txt").write_text("later"),
        status="invalid",
        reason="no notebook was handed in",
    ),
    "odd name (1) é": Case(
        "odd names of files and students are no fault", write=named("my work — final (2).ipynb")
    ),
    "nan": double("def double(x): return np.asarray(x) * np.nan", says="nan is wrong"),
    "inf": double("def double(x): return np.asarray(x) * np.inf", says="inf is wrong"),
    "None": double("def double(x): return None", says="None is wrong"),
    "dtype": double("def double(x): return np.asarray(x).astype(str)", says="strings are wrong"),
    "shape": double("def double(x): return np.zeros((3, 5, 7))", says="another shape is wrong"),
    "random": double("def double(x): return np.random.rand(2)", says="random numbers are wrong"),
    "show": Case(
        "plt.show() shows its figure in the copy",
        cells=("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",),
        copy="image/png",
    ),
    "outputs": Case("50 MB of stored outputs are not looked at", write=changed(stored_outputs)),
}
TWICE = ["wrong", "exit", "recursion", "sys-exit", "reordered"]


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    return grade_all(tmp_path_factory.mktemp("honest"), CASES)


@pytest.mark.parametrize("student", [pytest.param(s, id=c.says) for s, c in CASES.items()])
def test_it_is_so(student, graded):
    check(CASES[student], student, graded)


def test_all_have_a_result_and_nothing_is_left(graded):
    check_batch(graded, CASES)


def test_graded_again_the_results_are_the_same(graded, tmp_path):
    again = grade_again(graded, TWICE, tmp_path)
    assert {s: told(r) for s, r in again.items()} == {s: told(graded.results[s]) for s in TWICE}


def test_a_torch_tensor_for_an_array_is_taken_as_its_numbers(graded):
    secret = read_key(graded.keys)
    source = "import torch\ndef double(x): return torch.as_tensor(np.asarray(x, float)) * 2"
    submission = match(plain_cells(answered(secret, {"double": source})), secret)
    limits = Limits(cell_seconds=60, memory_gb=8)
    assert outcome(judge(secret, submission, lambda: Bridge(limits))) == FULL
