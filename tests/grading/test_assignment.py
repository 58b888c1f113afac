from datetime import UTC, datetime

import pytest

from segedu.errors import InputError
from segedu.grading.assignment import Limits, defined_names, read_assignment


def test_an_assignment_has_its_questions_marks_limits_and_mutants(source):
    assignment = read_assignment(source)
    names = [cell.metadata.nbgrader.grade_id for cell in assignment.questions]
    assert names == ["double_test", "total_test", "why"]
    assert assignment.total == 6
    assert assignment.due == datetime(2026, 12, 1, 12, tzinfo=UTC)
    assert assignment.late == 0.1
    assert assignment.limits == Limits(
        cell_seconds=2, notebook_seconds=20, memory_gb=2, processes=32, output_mb=1
    )
    assert list(assignment.mutants) == [
        "An empty sum is taken for an error.",
        "Doubling was taken for squaring.",
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("late: 2", "late is 2; expected a share"),
        ("late: x", "late is 'x'"),
        ("due: 2026-12-01 12:00:00", "expected a time with its zone"),
        ("due: soon", "due is 'soon'"),
        ("colour: red", "has \\['colour'\\]; expected some of"),
        ("limits: {seconds: 3}", "limits has \\['seconds'\\]"),
        ("limits: {cell_seconds: 0}", "cell_seconds is 0; expected a number above 0"),
        ("limits: {cell_seconds: true}", "cell_seconds is True"),
        ("limits: {cell_seconds: fast}", "cell_seconds is 'fast'"),
        ("a: [", "is no YAML"),
        ("- a list", "expected some of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(source, settings, said):
    (source / "assignment.yml").write_text(settings)
    with pytest.raises(InputError, match=said):
        read_assignment(source)


def test_an_empty_settings_file_means_the_defaults(source):
    (source / "assignment.yml").write_text("")
    assert read_assignment(source).limits == Limits()
    assert read_assignment(source).due is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"grade_id": "total_test"', '"grade_id": "double_test"', "grade_id is 'double_test'"),
        ('"grade_id": "total_test"', '"grade_id": ""', "grade_id is ''"),
        ('"points": 3', '"points": -1', "points are -1"),
        ('"points": 3', '"points": true', "points are True"),
        ('"points": 3, ', "", "points are None"),
        ('"points": 1, "schema_version": 3, "solution": true', '"points": 1, "schema_version": 3, "solution": false', "both grade and solution"),
    ],
)  # fmt: skip
def test_cells_that_cannot_be_graded_are_refused(source, old, new, said):
    path = source / "tiny.py"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=said):
        read_assignment(source)


def test_what_is_missing_is_named(source, tmp_path):
    with pytest.raises(InputError, match=r"has no nothing\.py"):
        read_assignment(tmp_path / "nothing")
    (source / "assignment.yml").unlink()
    with pytest.raises(InputError, match=r"assignment\.yml: is missing"):
        read_assignment(source)


@pytest.mark.parametrize("text", ["def f(): pass\n", "# only a sentence\n"])
def test_a_mutant_says_what_was_misunderstood_and_does_it(source, text):
    (source / "mutants" / "x.py").write_text(text)
    with pytest.raises(InputError, match=r"x\.py: begins with"):
        read_assignment(source)


def test_defined_names_are_those_at_the_top_level():
    code = "import a.b as c\nfrom d import e\nx, (y, *z) = 1, (2, 3)\nx += 1\nfor i in []: j = 1\nwith f() as g: pass\nclass K:\n    m = 1\nasync def h():\n    n = 1\nif (w := 1): pass"
    assert defined_names(code) == ["x", "y", "z", "i", "j", "g", "K", "h", "w"]
