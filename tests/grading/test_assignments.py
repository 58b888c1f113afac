"""The assignments of the course: each holds its self-test, and its release runs anywhere."""

import ast
from pathlib import Path

import nbformat
import papermill
import pytest

from segedu.grading import selftest as module
from segedu.grading.assignment import read_assignment
from segedu.grading.cells import HIDDEN_TESTS, is_test, points, regions
from segedu.grading.keys import answered
from segedu.grading.parameters import seed_of
from segedu.grading.release import key, released
from segedu.grading.selftest import selftest
from segedu.notebooks.build import repository_address
from segedu.notebooks.colab import bootstrap

FOLDER = Path(__file__).parents[2] / "course" / "assignments"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
WITH_TORCH = ("training_and_mixed_precision", "unet")
INSTALLS = ast.dump(ast.parse(bootstrap(repository_address())))  # a formatter may break its lines
OWN_NUMBERS = ("convolution_arithmetic", "training_and_mixed_precision")


def assignment(name):
    return read_assignment(FOLDER / name)


def test_there_are_six():
    assert len(NAMES) == 6


def once_for_mutants(judge):
    """Judges the solution twice, and a mutant once: `segedu selftest` judges all twice."""
    seen = {}

    def judged(secret, notebook, values=None, **options):
        text = nbformat.writes(notebook)
        if text not in seen or notebook == answered(secret):
            seen[text] = judge(secret, notebook, values, **options)
        return seen[text]

    return judged


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_its_self_test_holds(name, sandboxed, monkeypatch):
    monkeypatch.setattr(module, "judge_notebook", once_for_mutants(module.judge_notebook))
    trials = list(selftest(key(assignment(name))))
    assert {trial.name: trial.fault for trial in trials if trial.fault} == {}
    assert len(trials) >= 7


@pytest.mark.parametrize("name", NAMES)
def test_it_has_four_to_eight_questions_one_for_a_person_and_five_mutants_or_more(name):
    found = assignment(name)
    solutions = {
        c.metadata.nbgrader.grade_id
        for c in found.notebook.cells
        if c.metadata.get("nbgrader", {}).get("solution")
    }
    assert 4 <= len(solutions) <= 9  # RoIAlign is one question in two cells
    assert 4 <= len(found.questions) <= 8
    assert sum(c.cell_type == "markdown" for c in found.questions) == 1
    assert len(found.mutants) >= 5
    assert found.due is not None


@pytest.mark.parametrize("name", NAMES)
def test_each_cell_of_tests_has_a_visible_part_and_a_hidden_one_and_some_give_partial_credit(name):
    cells = [c for c in assignment(name).notebook.cells if is_test(c)]
    for cell in cells:
        [span] = regions(cell.source, HIDDEN_TESTS)
        assert span.start > 0, cell.metadata.nbgrader.grade_id
    ends = [ast.parse(cell.source).body[-1] for cell in cells]
    partial = [c for c, end in zip(cells, ends, strict=True) if isinstance(end, ast.Expr)]
    assert partial
    assert all(points(cell) > 1 for cell in partial)


@pytest.mark.parametrize("name", NAMES)
def test_what_needs_torch_or_segedu_begins_with_what_installs_them_on_colab(name):
    cells = assignment(name).notebook.cells
    code = "\n".join(c.source for c in cells if c.cell_type == "code")
    first = next(c for c in cells if c.cell_type == "code")
    needs = "import torch" in code or "from segedu" in code
    assert needs == (name in WITH_TORCH)
    assert (ast.dump(ast.parse(first.source)) == INSTALLS) == needs


def answered_release(name, folder):
    """The release with solutions pasted in, as a file; its tests are the visible ones only."""
    path = folder / f"{name}.ipynb"
    notebook = answered(key(assignment(name)))
    for cell, given in zip(notebook.cells, released(assignment(name)).cells, strict=True):
        cell.metadata = given.metadata
        assert "HIDDEN" not in cell.source
    nbformat.write(notebook, path)
    return path


@pytest.mark.slow
def test_with_its_solutions_a_release_runs_in_a_plain_kernel_as_in_jupyterlab_and_on_colab(
    tmp_path,
):
    def run(name):
        done = papermill.execute_notebook(
            answered_release(name, tmp_path),
            tmp_path / f"{name}_done.ipynb",
            cwd=str(tmp_path),
            kernel_name="python3",
            progress_bar=False,
            parameters={"seed": 41} if name in OWN_NUMBERS else {},
        )
        return [c for c in done.cells if c.cell_type == "code" and c.execution_count is None]

    assert [run(name) for name in NAMES] == [[]] * 6


@pytest.mark.parametrize("name", OWN_NUMBERS)
def test_two_students_have_numbers_of_their_own(name):
    found = assignment(name)
    assert found.parameters == {"seed": 0, "student": "demo"}
    source = next(c.source for c in found.notebook.cells if "_of(seed):" in c.source)
    drawn = []
    for student in ("ana", "bo"):
        names = {"seed": seed_of(name, student), "student": student}
        exec(source, {"Random": __import__("random").Random}, names)
        drawn.append(names["layers"] if "layers" in names else names["numbers"])
    assert drawn[0] != drawn[1]
