import json

import nbformat
import pytest
from tiny_assignment import outcome
from typer.testing import CliRunner

from segedu.cli import app
from segedu.errors import InputError
from segedu.grading.assignment import read_assignment
from segedu.grading.cells import checksum
from segedu.grading.job import Job, grade_one
from segedu.grading.keys import answered, read_key
from segedu.grading.notebook_file import plain_cells
from segedu.grading.parameters import own_values, seed_of, values_for
from segedu.grading.release import key, write_release
from segedu.grading.selftest import OTHER_NUMBERS, selftest
from segedu.grading.submission import match

CELL = '# %% tags=["parameters"]\nseed = 0\nstudent = "demo"\n\n'
QUESTION = '''
# %% nbgrader={"grade": false, "grade_id": "mine", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mine():
    """The seed."""
    ### BEGIN SOLUTION
    return seed
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "mine_test", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert mine() == seed, "it is the seed"
### BEGIN HIDDEN TESTS
assert student, "somebody"
### END HIDDEN TESTS
'''


@pytest.fixture
def seeded(source):
    """The small assignment, with parameters and a question that has a number."""
    path = source / "tiny.py"
    head, rest = path.read_text().split("# %% nbgrader", 1)
    path.write_text(head + CELL + "# %% nbgrader" + rest + QUESTION)
    settings = source / "assignment.yml"
    settings.write_text(settings.read_text() + "parameters: {seed: 0, student: demo}\n")
    return source


def keyed(seeded, *, own_numbers=True):
    return key(read_assignment(seeded), own_numbers=own_numbers)


def grade(tmp_path, notebook, student="ana"):
    path = tmp_path / "submissions" / student / "tiny.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    result = grade_one(Job(student, path, tmp_path / "key/tiny", tmp_path / "graded"))
    return result, nbformat.read(tmp_path / "graded" / student / "tiny.ipynb", 4)


def test_a_seed_is_31_bits_of_the_assignment_and_the_student():
    assert seed_of("tiny", "ana") == 1605787568  # so it is for ever
    assert seed_of("tiny", "bo") != seed_of("tiny", "ana") != seed_of("tin", "yana")
    assert all(0 <= seed_of("tiny", f"s{n}") < 2**31 for n in range(100))


def test_with_a_roster_each_student_has_own_numbers_and_without_one_all_have_the_defaults(seeded):
    own = {"seed": seed_of("tiny", "ana"), "student": "ana"}
    assert values_for(keyed(seeded), "ana") == own
    assert values_for(keyed(seeded, own_numbers=False), "ana") == {"seed": 0, "student": "demo"}
    assert values_for({"name": "old"}, "ana") == {}
    assert own_values("tiny", {"size": 3}, "ana") == {"size": 3}


def test_the_values_are_set_after_the_students_cell_and_papermill_sets_them_in_the_copy(
    seeded, tmp_path, sandboxed
):
    write_release(read_assignment(seeded), tmp_path / "release", tmp_path / "key", ["ana"])
    notebook = answered(read_key(tmp_path / "key/tiny"))
    notebook.cells[1].source = 'seed = 7\nstudent = "somebody else"\nextra = 1'
    result, copy = grade(tmp_path, notebook)
    assert outcome(result)["mine_test"] == ("pass", 1)
    assert result.repairs == []
    injected = [c for c in copy.cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert [c.source for c in injected] == [
        f'# Parameters\nseed = {seed_of("tiny", "ana")}\nstudent = "ana"\n'
    ]
    place = copy.cells.index(injected[0])
    assert copy.cells[place - 1].source == notebook.cells[1].source
    assert "Error" not in json.dumps(copy)


def test_an_answer_for_other_numbers_is_wrong(seeded, tmp_path, sandboxed):
    write_release(read_assignment(seeded), tmp_path / "release", tmp_path / "key", ["ana", "bo"])
    secret = read_key(tmp_path / "key/tiny")
    bos = f"def mine(): return {seed_of('tiny', 'bo')}"
    for student, status in (("ana", "fail"), ("bo", "pass")):
        result, _ = grade(tmp_path, answered(secret, {"mine": bos}), student)
        assert outcome(result)["mine_test"][0] == status


@pytest.mark.parametrize("how", ["deleted", "stripped", "moved"])
def test_a_cell_of_parameters_that_is_gone_or_stripped_costs_nothing(seeded, how):
    secret = keyed(seeded)
    notebook = answered(secret)
    cell = notebook.cells.pop(1)
    if how == "stripped":
        cell.metadata, cell["id"] = nbformat.from_dict({}), "other"
        notebook.cells.insert(1, cell)
    if how == "moved":
        notebook.cells.insert(3, cell)
    values = {"seed": 5, "student": "ana"}
    found = match(plain_cells(notebook), secret, values)
    places = [n for n, c in enumerate(found.cells) if c.part == "injected"]
    assert places == [{"deleted": 0, "stripped": 2, "moved": 4}[how]]
    assert found.cells[places[0]].source == "seed = 5\nstudent = 'ana'"
    assert found.parameters == values


def test_an_answer_that_is_tagged_as_parameters_is_still_an_answer(seeded):
    secret = keyed(seeded)
    notebook = answered(secret)
    notebook.cells[3].metadata["tags"] = ["parameters"]
    notebook.cells.insert(0, notebook.cells.pop(3))
    found = match(plain_cells(notebook), secret)
    assert found.cells[0].name == "double"
    assert [c.part for c in found.cells[1:4]] == ["", "parameters", "injected"]


def test_a_locked_cell_of_parameters_is_restored_without_a_word(seeded):
    about = '{"grade": false, "grade_id": "numbers", "locked": true, "schema_version": 3, "solution": false, "task": false}'
    path = seeded / "tiny.py"
    path.write_text(
        path.read_text().replace('tags=["parameters"]', f'tags=["parameters"] nbgrader={about}')
    )
    secret = keyed(seeded)
    notebook = answered(secret)
    notebook.cells[1].source = "import os"
    found = match(plain_cells(notebook), secret)
    assert found.cells[1].source == 'seed = 0\nstudent = "demo"'
    assert found.repairs == []


def test_a_roster_gives_each_student_a_notebook_that_is_otherwise_the_same(seeded, tmp_path):
    (tmp_path / "roster.csv").write_text("student\nana\nbo\n")
    words = ["release", seeded, "-o", tmp_path / "release", "--key", tmp_path / "key"]
    done = CliRunner().invoke(app, [*map(str, words), "--roster", str(tmp_path / "roster.csv")])
    assert done.exit_code == 0, done.output
    assert "students: 2 notebooks" in done.output
    common = nbformat.read(tmp_path / "release/tiny/tiny.ipynb", 4)
    anas = nbformat.read(tmp_path / "release/students/ana/tiny.ipynb", 4)
    nbformat.validate(anas)
    assert anas.cells[1].source == f"seed = {seed_of('tiny', 'ana')}\nstudent = 'ana'"
    assert [c for n, c in enumerate(anas.cells) if n != 1] == [
        c for n, c in enumerate(common.cells) if n != 1
    ]
    assert read_key(tmp_path / "key/tiny")["own_numbers"] is True
    assert all(
        c.metadata.nbgrader.checksum == checksum(c)
        for c in anas.cells
        if "checksum" in c.metadata.get("nbgrader", {})
    )


def test_a_roster_for_an_assignment_without_parameters_is_refused(source, tmp_path):
    with pytest.raises(InputError, match="has no parameters"):
        write_release(read_assignment(source), tmp_path / "r", tmp_path / "k", ["ana"])


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("", "0 cells are tagged parameters"),
        (CELL + CELL, "2 cells are tagged"),
        (CELL.replace("= 0", "= 1"), "the cell tagged parameters says .*'seed': 1"),
        (CELL.replace("= 0", "= int(0)"), "says {}"),
        (CELL.replace("seed = 0", "print(0)"), "says {}"),
        (CELL.replace("# %%", "# %% [markdown]").replace("seed", "# seed"), "1 cells are tagged"),
    ],
)
def test_the_cell_and_the_settings_must_say_the_same(seeded, cell, said):
    path = seeded / "tiny.py"
    path.write_text(path.read_text().replace(CELL, cell))
    with pytest.raises(InputError, match=said):
        read_assignment(seeded)


def test_other_faults_of_parameters_are_refused(seeded):
    path, settings = seeded / "tiny.py", seeded / "assignment.yml"
    sound = path.read_text()
    path.write_text(sound.replace("def mine():", "seed = 3\ndef mine():"))
    with pytest.raises(InputError, match=r"\(mine\): a solution binds the parameter \['seed'\]"):
        read_assignment(seeded)
    path.write_text(sound)
    settings.write_text(settings.read_text().replace("{seed: 0, student: demo}", "[seed]"))
    with pytest.raises(InputError, match="parameters is no mapping"):
        read_assignment(seeded)


def test_the_self_test_tries_the_solution_with_another_students_numbers(seeded, sandboxed):
    path = seeded / "tiny.py"
    path.write_text(path.read_text().replace("    return seed\n", "    return 0\n"))
    trials = {t.name: t.fault for t in selftest(keyed(seeded))}
    assert trials["solution"] == ""
    assert trials[OTHER_NUMBERS].startswith("expected all marks; mine_test")
