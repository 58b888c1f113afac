import shutil
import textwrap

import nbformat
import pytest
from tiny_assignment import FAST, MUTANTS, SOURCE

from segedu.grading.assignment import Limits, read_assignment
from segedu.grading.bridge import Bridge
from segedu.grading.keys import answered
from segedu.grading.notebook_file import plain_cells
from segedu.grading.release import key
from segedu.grading.submission import match
from segedu.grading.verdict import judge

needs_sandbox = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed; .ci/run installs it"
)


def pytest_collection_modifyitems(items):
    """Tests that ask for a sandbox are skipped where there is none."""
    for item in items:
        if "sandboxed" in getattr(item, "fixturenames", ()):
            item.add_marker(needs_sandbox)


@pytest.fixture
def sandboxed():
    """Says that a test needs a sandbox."""


@pytest.fixture
def source(tmp_path):
    """The folder of a small assignment."""
    folder = tmp_path / "source" / "tiny"
    (folder / "mutants").mkdir(parents=True)
    (folder / "tiny.py").write_text(SOURCE)
    (folder / "assignment.yml").write_text("due: 2026-12-01T12:00:00+00:00\nlate: 0.1\n" + FAST)
    for name, text in MUTANTS.items():
        (folder / "mutants" / name).write_text(textwrap.dedent(text))
    return folder


@pytest.fixture
def secret(source):
    """Its key."""
    return key(read_assignment(source))


@pytest.fixture
def verdict_of(secret, sandboxed):
    """Judge a notebook made of the solutions and the answers given, or of changed cells."""

    def judged(answers=None, *, change=None):
        notebook = answered(secret, answers or {})
        if change:
            change(notebook)
        submission = match(plain_cells(notebook), secret)
        return judge(secret, submission, lambda: Bridge(Limits(**secret["limits"])))

    return judged


@pytest.fixture
def hand_in(secret, tmp_path):
    """Write a submission of a student; returns its file."""

    def write(student, answers=None, name="tiny"):
        path = tmp_path / "submissions" / student / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(answered(secret, answers or {}), path)
        return path

    return write
