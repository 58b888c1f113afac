"""A small graded class made without a sandbox: results, copies and self-test as grading writes them."""

import nbformat

from segedu.grading import graded_copy
from segedu.grading.behaviour import write_behaviours
from segedu.grading.question import Question
from segedu.grading.results import Result, write_result
from segedu.grading.selftest import Trial

RIGHT = Question("double_test", "pass", 2.0, 2.0)
WRONG = Question("double_test", "fail", 0.0, 2.0, "1 and 2 become 2 and 4", "line 1: [1, 4]")
TOTAL = Question("total_test", "pass", 3.0, 3.0)
PART = Question("total_test", "partial", 2.0, 3.0)
WHY = Question("why", "manual", None, 1.0, "marked by a person")
SILENT = Question("why", "no-response", 0.0, 1.0, "nothing was written")
SOLUTION = Trial("solution", 5, 5, "", (RIGHT, TOTAL, WHY))
SQUARES = Trial("Doubling was taken for squaring.", 3, 5, "", (WRONG, TOTAL, WHY))
TRIALS = [SOLUTION, Trial("untouched", 0, 6, "", (SILENT,)), SQUARES]


def cell(source, question="", kind="code", outputs=()):
    metadata = {"segedu": {"question": question}} if question else {}
    if kind == "code":
        new = nbformat.v4.new_code_cell(source, metadata=metadata)
        new.outputs = [nbformat.from_dict(output) for output in outputs]
        return new
    return nbformat.v4.new_markdown_cell(source, metadata=metadata)


def write_work(folder, student, questions, *, cells=(), answer="Because.", **more):
    """Write a result and its graded copy; `more` goes into the result."""
    known = [q.score for q in questions if q.score is not None]
    status = "needs-manual" if len(known) < len(questions) else "graded"
    fields = {"status": status, "score": sum(known), "most": 6.0, **more}
    result = Result(student, "tiny", questions=list(questions), **fields)
    write_result(result, folder)
    copy = nbformat.v4.new_notebook()
    copy.cells = [*cells, cell(answer, "why", "markdown")]
    graded_copy.write_copy(copy, result, folder / student / "tiny.ipynb")
    return result


def write_class(folder):
    """Four students: one to be marked, one wrong as a mutant, one silent, one that nobody graded."""
    write_work(folder, "ana", [RIGHT, TOTAL, WHY])
    write_work(folder, "bo", [WRONG, TOTAL, SILENT], raised=["cell 1 E: RAISED-SECRET"])
    write_work(folder, "cem", [RIGHT, PART, SILENT], score=4.0, late_days=1, late_cost=0.5)
    write_work(folder, "dee", [], status="infrastructure", score=None, reason="no sandbox")
    write_behaviours(TRIALS, "tiny", folder)
    return folder
