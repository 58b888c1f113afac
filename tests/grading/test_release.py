import json
from pathlib import Path

import nbformat
import pytest

from segedu.errors import InputError
from segedu.grading.assignment import read_assignment
from segedu.grading.cells import CODE_STUB
from segedu.grading.keys import read_key
from segedu.grading.release import find_leaks, key, released, write_release

ASSIGNMENTS = Path(__file__).parents[2] / "course" / "assignments"


@pytest.fixture
def notebook(source):
    return released(read_assignment(source))


def by_name(notebook, name):
    return next(c for c in notebook.cells if c.id == name)


def test_students_get_stubs_and_visible_tests_only(notebook):
    assert CODE_STUB.split("\n")[0] in by_name(notebook, "double").source
    assert "return np.asarray" not in by_name(notebook, "double").source
    assert by_name(notebook, "double_test").source == (
        'assert np.allclose(double([1, 2]), [2, 4]), "1 and 2 become 2 and 4"'
    )
    assert by_name(notebook, "total_test").source.split("\n") == [
        "marks = 0",
        "marks += total([1, 2]) == 3",
        "marks",
    ]
    assert by_name(notebook, "why").source == "YOUR ANSWER HERE"
    text = json.dumps(notebook)
    assert "HIDDEN" not in text
    assert "-34.5" not in text


def test_cells_have_stable_ids_checksums_and_locks(notebook):
    assert [c.id for c in notebook.cells][:3] == ["tiny-00", "setup", "double"]
    test = by_name(notebook, "double_test")
    assert test.metadata.editable is False
    assert test.metadata.deletable is False
    assert len(test.metadata.nbgrader.checksum) == 32
    answer = by_name(notebook, "double")
    assert answer.metadata.deletable is False
    assert "editable" not in answer.metadata
    nbformat.validate(notebook)


def test_release_and_key_are_written_apart_and_the_key_is_the_owners_alone(source, tmp_path):
    notebook, secret = write_release(read_assignment(source), tmp_path / "r", tmp_path / "k")
    assert notebook == tmp_path / "r" / "tiny" / "tiny.ipynb"
    assert secret == tmp_path / "k" / "tiny" / "key.json"
    assert secret.stat().st_mode & 0o077 == 0
    assert read_key(secret) == read_key(secret.parent)
    assert read_key(secret)["total"] == 6


@pytest.mark.parametrize("keys", ["r", "r/key", "r/a/../b"])
def test_a_key_within_the_release_is_refused(source, tmp_path, keys):
    with pytest.raises(InputError, match="lies in the release"):
        write_release(read_assignment(source), tmp_path / "r", tmp_path / keys)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("# # Two questions", "# # Two questions\n#\n# return np.asarray(x) * 2", "cell 1 has a line of double's SOLUTION in its source"),
        ("import numpy as np\n", "import numpy as np\nsecret_input = -17.25\n", "cell 2 has a line of double_test's HIDDEN TESTS"),
        ('"grade_id": "setup"', '"note": "secret_input = -17.25", "grade_id": "setup"', "in its metadata"),
        ("import numpy as np\n", "import numpy as np\n### BEGIN SOLUTION\n### END SOLUTION\n", "BEGIN SOLUTION may stand only in a cell marked as solution"),
        ("import numpy as np\n", "import numpy as np\n### BEGIN HIDDEN TESTS\n### END HIDDEN TESTS\n", "may stand only in a cell of tests"),
        ("# # Two questions", "# # Two questions\n# BEGIN MARK SCHEME\n# END MARK SCHEME", "may stand only in a cell marked as task"),
        ('"grade_id": "setup"', '"grade_id": "a name"', "at most 64 letters"),
    ],
)  # fmt: skip
def test_a_release_that_would_tell_is_refused(source, old, new, said):
    path = source / "tiny.py"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=said):
        released(read_assignment(source))


def test_a_cell_that_is_a_solution_as_a_whole_is_secret_too(source):
    path = source / "tiny.py"
    text = path.read_text().replace("### BEGIN SOLUTION\n    return np", "return np")
    text = text.replace("* 2\n    ### END SOLUTION", "* 2")
    path.write_text(text.replace("# # Two questions", "# # Two\n#\n# return np.asarray(x) * 2"))
    with pytest.raises(InputError, match="a line of double's SOLUTION"):
        released(read_assignment(source))


def test_a_mark_left_in_metadata_and_an_attachment_of_tests_are_found(source):
    assignment = read_assignment(source)
    notebook = released(assignment)
    notebook.cells[0].metadata["x"] = "### BEGIN HIDDEN TESTS"
    by_name(notebook, "double_test")["attachments"] = {"a.png": {"image/png": "AA=="}}
    found = list(find_leaks(assignment, notebook))
    assert any("still has a mark BEGIN HIDDEN TESTS" in line for line in found)
    assert any("has an attachment" in line for line in found)


@pytest.mark.parametrize("name", sorted(p.name for p in ASSIGNMENTS.iterdir() if p.is_dir()))
def test_each_assignment_of_the_course_is_sound(name, tmp_path):
    assignment = read_assignment(ASSIGNMENTS / name)
    assert 4 <= len(assignment.questions) <= 8
    assert len(assignment.mutants) >= 5
    secret = key(assignment)
    tests = [
        c for c in secret["cells"] if c["nbgrader"].get("grade") and not c["nbgrader"]["solution"]
    ]
    assert all("HIDDEN TESTS" in cell["source"] for cell in tests)
    assert all(cell["released"].strip() for cell in tests)
    assert any(c["nbgrader"].get("grade") and c["nbgrader"]["solution"] for c in secret["cells"])
    assert any("marks" in c["source"] or "score" in c["source"] for c in tests)
