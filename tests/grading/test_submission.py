import copy
import json
import os
import tracemalloc

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from segedu.grading import notebook_file as module
from segedu.grading.keys import answered
from segedu.grading.notebook_file import Invalid, plain_cells, read_cells
from segedu.grading.submission import match, read_submission


@pytest.fixture
def notebook(secret):
    return answered(secret)


def names(submission):
    return [cell.name for cell in submission.cells]


WHOLE = ["", "setup", "double", "double_test", "total", "total_test", "why"]


def test_a_submission_is_laid_beside_its_key(notebook, secret):
    found = match(plain_cells(notebook), secret)
    assert names(found) == WHOLE
    assert [cell.is_test for cell in found.cells] == [n.endswith("_test") for n in WHOLE]
    assert found.repairs == []
    assert found.last("total") == 4
    assert found.last("nothing") == -1
    assert "return np.asarray" in found.answers("double")[0]


def test_locked_cells_that_were_changed_are_restored(notebook, secret):
    notebook.cells[3].source = "assert True"
    notebook.cells[1].source = "np = None"
    notebook.cells[5].metadata.nbgrader["points"] = 100
    found = match(plain_cells(notebook), secret)
    assert found.answers("setup") == ["import numpy as np"]
    assert "1 and 2 become 2 and 4" in found.answers("double_test")[0]
    assert [line.split(":")[0] for line in found.repairs] == ["setup", "double_test"]


def test_what_was_written_into_a_locked_cell_stands_before_it(notebook, secret):
    notebook.cells[1].source += "\nimport math"
    notebook.cells[3].source = notebook.cells[3].source.replace("\n", "\n\n")  # nothing new
    found = match(plain_cells(notebook), secret)
    assert names(found) == ["", "", *WHOLE[1:]]
    assert found.cells[1].source == "import numpy as np\nimport math"
    assert found.cells[1].is_code
    assert not found.cells[1].is_test


def test_without_metadata_cells_are_known_by_their_ids(notebook, secret):
    for cell in notebook.cells:
        cell.metadata = {}
    assert names(match(plain_cells(notebook), secret)) == WHOLE


def test_without_metadata_and_ids_cells_are_known_by_what_they_are(notebook, secret):
    for number, cell in enumerate(notebook.cells):
        cell.metadata, cell["id"] = {}, f"other-{number}"
    notebook.cells[2].source += "\nhelper = 1"
    found = match(plain_cells(notebook), secret)
    assert names(found) == WHOLE  # free text by where it stands
    assert "double: found by what it defines; its metadata were gone" in found.repairs
    assert "why: found by where it stands; its metadata were gone" in found.repairs


def test_extra_broken_and_duplicated_cells_are_kept_as_they_are(notebook, secret):
    notebook.cells.insert(0, new_code_cell("def f(:"))
    notebook.cells.append(notebook.cells[3])
    found = match(plain_cells(notebook), secret)
    assert names(found) == ["", *WHOLE, "double"]
    assert len(found.answers("double")) == 2


def test_a_cell_of_another_kind_is_not_the_keys(notebook, secret):
    notebook.cells[2].cell_type = "markdown"
    found = match(plain_cells(notebook), secret)
    assert found.cells[2].name == ""


def test_a_notebook_of_format_3_is_read(tmp_path, secret, notebook):
    old = nbformat.convert(notebook, 3)
    path = tmp_path / "old.ipynb"
    path.write_text(json.dumps(old))
    assert names(read_submission(path, secret))[:6] == WHOLE[:6]


def test_stored_outputs_are_dropped_however_broken_they_are(tmp_path, secret, notebook):
    given = json.loads(nbformat.writes(notebook))
    given["cells"][2]["outputs"] = 7
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(given))
    assert names(read_submission(path, secret)) == WHOLE


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"%PDF-1.7\n\xff\xfe", "not UTF-8"),
        ('{"cells": []}'.encode("utf-16"), "not UTF-8"),
        (b'{"cells": [', "no JSON"),
        (b"<<<<<<< HEAD\n{}", "marks of a merge"),
        (b"[1, 2]", "no notebook"),
        (b'{"a": 1}', "no notebook"),
        (b"[" * 100_000, "no JSON"),
        (b'{"cells": [{"cell_type": "code"}], "nbformat": 4, "nbformat_minor": 5}', "any format"),
        (b'{"cells": 7, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "any format"),
        (b'{"worksheets": [7], "nbformat": 3}', "any format"),
        (b'{"cells": [], "nbformat": "x"}', "any format"),
    ],
)
def test_what_is_no_notebook_is_said_to_be_none(tmp_path, secret, content, said):
    path = tmp_path / "a.ipynb"
    path.write_bytes(content)
    with pytest.raises(Invalid, match=said):
        read_submission(path, secret)


def test_links_pipes_folders_and_missing_files_are_not_opened(tmp_path, secret):
    (tmp_path / "real.ipynb").write_text("{}")
    (tmp_path / "link.ipynb").symlink_to(tmp_path / "real.ipynb")
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "folder.ipynb").mkdir()
    for name in ("link", "nothing"):
        with pytest.raises(Invalid, match="cannot be opened"):
            read_submission(tmp_path / f"{name}.ipynb", secret)
    for name in ("pipe", "folder"):
        with pytest.raises(Invalid, match="no ordinary file"):
            read_submission(tmp_path / f"{name}.ipynb", secret)


def test_too_large_a_file_and_too_many_cells_are_refused(tmp_path, secret, notebook, monkeypatch):
    path = tmp_path / "a.ipynb"
    path.write_text(nbformat.writes(notebook))
    monkeypatch.setattr(module, "MOST_CELLS", 3)
    with pytest.raises(Invalid, match="has 7 cells"):
        read_submission(path, secret)
    monkeypatch.setattr(module, "LARGEST_FILE", 100)
    with pytest.raises(Invalid, match="at most 100 are read"):
        read_submission(path, secret)


def test_own_code_beside_a_text_without_metadata_stays_code_without_a_name(secret, notebook):
    for cell in notebook.cells:
        cell.metadata.clear()
        cell["id"] = "x" + cell["id"]
    notebook.cells.insert(-1, new_code_cell("mine = 1"))
    notebook.cells[-1].source = "Since nothing was added."
    found = match(plain_cells(notebook), secret)
    assert found.answers("why") == ["Since nothing was added."]
    assert [cell.name for cell in found.cells if cell.source == "mine = 1"] == [""]


def test_metadata_of_no_sense_are_no_names(notebook, secret):
    cells = plain_cells(notebook)
    notebook.cells[2].metadata["nbgrader"] = "text"
    assert plain_cells(notebook)[2]["grade_id"] == ""
    assert cells[2]["grade_id"] == "double"


def test_a_text_without_its_metadata_is_found_by_where_it_stands(secret, notebook):
    for cell in notebook.cells:
        cell.metadata.clear()
        cell["id"] = "x" + cell["id"]
    notebook.cells.insert(1, new_markdown_cell("my notes"))
    notebook.cells[-1].source = "Since nothing was added."
    found = match(plain_cells(notebook), secret)
    assert found.answers("why") == ["Since nothing was added."]
    assert "why: found by where it stands; its metadata were gone" in found.repairs
    notebook.cells.insert(0, notebook.cells.pop())
    assert match(plain_cells(notebook), secret).answers("why") == []


@pytest.mark.parametrize(
    ("count", "said"), [(3_000_000, "more than 2000000 parts"), (500_000, "has 500000 cells")]
)
def test_a_small_file_of_many_parts_is_refused_before_it_takes_memory(tmp_path, count, said):
    path = tmp_path / "bomb.ipynb"
    cells = ",".join(["{}"] * count)
    path.write_text(f'{{"nbformat":4,"nbformat_minor":5,"metadata":{{}},"cells":[{cells}]}}')
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match=said):
            read_cells(path)
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("broken", [None, [], "x", 3], ids=repr)
def test_metadata_that_are_none_cost_nothing(notebook, secret, tmp_path, broken):
    given = json.loads(nbformat.writes(notebook))
    given["metadata"] = broken
    for cell in given["cells"]:
        cell["metadata"], cell["attachments"] = broken, broken
    path = tmp_path / "tiny.ipynb"
    path.write_text(json.dumps(given))
    assert names(read_submission(path, secret)) == WHOLE


def test_a_text_that_is_written_below_its_cell_or_in_a_cell_of_code_is_an_answer(notebook, secret):
    below, code = copy.deepcopy(notebook), copy.deepcopy(notebook)
    below.cells[-1].source = "YOUR ANSWER HERE"
    below.cells.append(new_markdown_cell("Because."))
    code.cells[-1] = new_code_cell("Because.", metadata=code.cells[-1].metadata)
    first, second = (match(plain_cells(given), secret) for given in (below, code))
    assert first.answers("why") == ["YOUR ANSWER HERE", "Because."]
    assert first.repairs == ["why: found by where it stands; it is not in its cell"]
    assert second.answers("why") == ["Because."]
    assert not second.cells[-1].is_code
