"""Releases in nbgrader itself, which lives in an environment of its own: `make nbgrader` makes it."""

import os
import subprocess
from pathlib import Path

import nbformat
import pytest

from segedu.grading.assignment import read_assignment
from segedu.grading.keys import answered
from segedu.grading.release import key, released

ROOT = Path(__file__).parents[2]
NBGRADER = ROOT / ".nbgrader" / "bin" / "nbgrader"
NUMPY_ONLY = (
    "boxes_nms_roialign",
    "convolution_arithmetic",
    "cross_entropy",
    "masks_and_metrics",
)
WITH_TORCH = ("training_and_mixed_precision", "unet")  # which nbgrader's environment has not

pytestmark = [
    pytest.mark.skipif(not NBGRADER.exists(), reason="`make nbgrader` has not been run"),
    pytest.mark.slow,
]


def course(tmp_path, name):
    """A course of nbgrader's with our source in it, and a way to call nbgrader there."""
    assignment = read_assignment(ROOT / "course" / "assignments" / name)
    notebook = assignment.notebook.copy()
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
    }
    path = tmp_path / "source" / name / f"{name}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)

    def call(*words):
        home = {**os.environ, "HOME": str(tmp_path), "JUPYTER_PREFER_ENV_PATH": "1"}
        home["PATH"] = f"{NBGRADER.parent}:{home['PATH']}"
        done = subprocess.run(
            [NBGRADER, *words], cwd=tmp_path, env=home, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    return assignment, call


def refuse_differences(theirs, ours):
    """Both releases have the same cells, in what they say and in what may be changed."""
    for other, own in zip(theirs.cells, ours.cells, strict=True):
        assert other.source == own.source
        assert other.metadata.get("nbgrader") == own.metadata.get("nbgrader")
        assert other.metadata.get("deletable") == own.metadata.get("deletable")
        assert other.metadata.get("editable") == own.metadata.get("editable")
        assert other.metadata.get("tags") == own.metadata.get("tags")


@pytest.mark.parametrize("name", WITH_TORCH)
def test_nbgrader_makes_the_same_release_of_what_needs_torch(tmp_path, name):
    assignment, call = course(tmp_path, name)
    call("generate_assignment", name)
    theirs = nbformat.read(tmp_path / "release" / name / f"{name}.ipynb", 4)
    refuse_differences(theirs, released(assignment))


@pytest.mark.parametrize("name", NUMPY_ONLY)
def test_nbgrader_makes_the_release_that_we_make_and_gives_our_solution_full_marks(tmp_path, name):
    assignment, call = course(tmp_path, name)
    call("generate_assignment", name)
    theirs = nbformat.read(tmp_path / "release" / name / f"{name}.ipynb", 4)
    refuse_differences(theirs, released(assignment))

    path = tmp_path / "submitted" / "ana" / name / f"{name}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(answered(key(assignment)), path)
    call("autograde", name)
    call("export", "--to", str(tmp_path / "grades.csv"))
    header, row = (tmp_path / "grades.csv").read_text().splitlines()
    grades = dict(zip(header.split(","), row.split(","), strict=True))
    by_hand = sum(
        c.metadata.nbgrader.points for c in assignment.questions if c.cell_type == "markdown"
    )
    assert float(grades["raw_score"]) == assignment.total - by_hand
    assert float(grades["max_score"]) == assignment.total
