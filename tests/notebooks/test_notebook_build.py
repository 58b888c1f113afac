import base64
import io
import sys
import tempfile
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image, PngImagePlugin

from segedu.errors import InputError
from segedu.notebooks import build as building
from segedu.notebooks.build import build, build_chapters, prepare, repository_address, stale
from segedu.notebooks.document import read_notebook
from segedu.notebooks.kernel import ChapterError
from segedu.notebooks.tidy import WIDGET, flaws, tidy

REPOSITORY = "https://github.com/someone/course"

SOURCE = '''\
# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # A chapter
#
# Why it is there.

# %% tags=["parameters"]
seed = 0

# %% alt="A line that rises"
import os
import sys
import matplotlib.pyplot as plt

_ = plt.plot([seed, 1])

# %%
print("data", os.environ.get("SEGEDU_DATA"))
print("here", os.path.basename(os.getcwd()), sys.prefix == PREFIX)


def double(x):
    """Twice `x`."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
print("not done yet")

# %% tags=["solution"]
double(1) if seed else 2
'''.replace(
    "PREFIX", f"__import__('base64').b64decode({base64.b64encode(sys.prefix.encode())!r}).decode()"
)


def chapter(folder, *cells, name="01_tiny"):
    """A source of a title and these cells."""
    source = folder / "source" / f"{name}.py"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("\n\n".join(["# %% [markdown]\n# # Title", *cells]), encoding="utf-8")
    return source


def build_in(folder, source):
    build(source, folder / f"{source.stem}.ipynb", repository=REPOSITORY)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source and the notebook of a chapter built once, with a data folder set."""
    folder = tmp_path_factory.mktemp("made") / "course"
    source = folder / "source" / "01_tiny.py"
    source.parent.mkdir(parents=True)
    source.write_text(SOURCE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGEDU_DATA", "/data")
        patch.setenv("MPLBACKEND", "Agg")
        build(source, folder / "01_tiny.ipynb", repository=REPOSITORY)
    return source, folder / "01_tiny.ipynb"


def texts(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(o.get("text", "") for o in cell.outputs) for cell in cells]


def test_a_chapter_runs_in_the_courses_folder_without_real_data_on_this_interpreter(built):
    assert texts(read_notebook(built[1]))[3] == "data None\nhere course True\n"


def test_the_badge_stands_below_the_title_and_the_first_code_cell_is_for_colab(built):
    title, first = read_notebook(built[1]).cells[:2]
    heading, empty, badge, *rest = title.source.split("\n")
    assert (heading, empty) == ("# A chapter", "")
    assert badge.startswith("[![Open in Colab]")
    assert "/someone/course/blob/main/course/01_tiny.ipynb" in badge
    assert rest == ["", "Why it is there."]
    assert f"segedu[chapters] @ git+{REPOSITORY}" in first.source
    assert first.metadata == {
        "jupyter": {"source_hidden": True},
        "tags": ["colab", "remove-cell"],
    }


def test_a_notebook_holds_no_version_time_or_note_of_the_tools(built):
    notebook = read_notebook(built[1])
    assert notebook.metadata.kernelspec == {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert "version" not in notebook.metadata.language_info
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags", "alt", "mystnb", "jupyter"}


def test_a_figure_has_eighty_dots_an_inch_its_alt_text_and_nothing_else(built):
    cell = read_notebook(built[1]).cells[3]
    [output] = cell.outputs
    assert output.data["text/plain"] == "<Figure size 512x384 with 1 Axes>"
    picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
    picture.load()
    assert picture.info == {}
    assert output.metadata == {"image/png": {"alt": "A line that rises"}}
    assert cell.metadata.mystnb == {"image": {"alt": "A line that rises"}}


def test_checks_and_solutions_are_folded(built):
    check, solution = read_notebook(built[1]).cells[-2:]
    assert check.metadata.tags == ["exercise-check", "hide-input"]
    assert solution.metadata.tags == ["solution", "hide-cell"]
    assert check.metadata.jupyter == solution.metadata.jupyter == {"source_hidden": True}


def test_a_built_notebook_is_neither_stale_nor_flawed(built):
    source, target = built
    assert stale(source, target, repository=REPOSITORY) == []
    assert flaws(read_notebook(target)) == []


def test_building_twice_gives_the_same_bytes(built):
    source, target = built
    before = target.read_bytes()
    build(source, target, repository=REPOSITORY)
    assert target.read_bytes() == before


def test_ids_stay_when_other_cells_come_and_go(tmp_path):
    three = chapter(tmp_path, "# %%\na = 1", "# %%\nb = 1", "# %%\nb = 1")
    ids = [cell.id for cell in prepare(three, repository=REPOSITORY).cells]
    assert len(set(ids)) == 5
    more = chapter(tmp_path, "# %%\nnew = 1", "# %%\na = 1", "# %%\nb = 1", "# %%\nb = 1")
    assert [
        cell.id for cell in prepare(more, repository=REPOSITORY).cells if "new" not in cell.source
    ] == ids
    other = chapter(tmp_path, "# %%\na = 1", name="02_other")
    assert not set(ids) & {cell.id for cell in prepare(other, repository=REPOSITORY).cells[2:]}


def test_a_changed_source_makes_a_notebook_stale(built, tmp_path):
    source, target = built
    changed = tmp_path / source.name
    changed.write_text(SOURCE.replace("seed = 0", "seed = 1"))
    assert stale(changed, target, repository=REPOSITORY) == [
        "cell 3 (seed = 1) differs in source, id"
    ]
    changed.write_text(SOURCE.replace("that rises", "that falls"))
    [told] = stale(changed, target, repository=REPOSITORY)
    assert told == "cell 4 (import os) differs in metadata"
    changed.write_text(SOURCE + "\n# %%\nmore = 1\n")
    assert stale(changed, target, repository=REPOSITORY) == ["it has 7 cells, its source 8"]
    assert stale(source, tmp_path / "none.ipynb", repository=REPOSITORY) == [
        "none.ipynb is missing"
    ]
    assert len(stale(source, target, repository=REPOSITORY + "2")) == 2


def test_a_notebook_with_other_metadata_is_stale(built, tmp_path):
    source, target = built
    other = tmp_path / target.name
    other.write_text(
        target.read_text().replace('"display_name": "Python 3"', '"display_name": "R"')
    )
    assert stale(source, other, repository=REPOSITORY) == ["its metadata differ"]


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (
            ["# %%\nx = 1", "# %%\ny = 0\nx / y"],
            "01_tiny: cell 4 (y = 0) fails with ZeroDivisionError: division by zero",
        ),
        (["# %%\nimport sys; sys.exit()"], "cell 3 (import sys; sys.exit()) fails with SystemExit"),
        (["# %%\nquit()", "# %%\n1"], "01_tiny: cell 3 (quit()) calls quit()"),
        (
            ["# %%\nimport os; os._exit(0)"],
            "01_tiny: cell 3 (import os; os._exit(0)): its kernel died",
        ),
        (
            ["# %%\nimport warnings; warnings.warn('old', DeprecationWarning)"],
            "fails with DeprecationWarning: old",
        ),
        (["# %%\nprint(('x' * 99 + chr(10)) * 10_000)"], "bytes, of at most 1,000,000"),
        (
            ["# %%\nfrom pathlib import Path; print(Path.cwd())"],
            "cell 3 (from pathlib import Path; print(Path.cwd())) shows a folder of this machine",
        ),
    ],
)
def test_a_chapter_that_fails_is_told_by_its_cell_and_nothing_is_written(tmp_path, cells, told):
    source = chapter(tmp_path, *cells)
    with pytest.raises(ChapterError) as error:
        build_in(tmp_path, source)
    assert told in str(error.value)
    assert list(tmp_path.glob("*.ipynb")) == []


def test_a_failing_line_is_shown_without_colours(tmp_path):
    with pytest.raises(ChapterError) as error:
        build_in(tmp_path, chapter(tmp_path, "# %%\ny = 0\n1 / y"))
    assert "----> 2 1 / y" in str(error.value)
    assert "\x1b" not in str(error.value)


def test_a_cell_that_takes_too_long_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "PATIENCE", 1)
    with pytest.raises(
        ChapterError, match=r"cell 3 \(import time; time.sleep\(9\)\): it took too long"
    ):
        build_in(tmp_path, chapter(tmp_path, "# %%\nimport time; time.sleep(9)"))


def test_a_chapter_without_a_title_is_refused(tmp_path):
    source = tmp_path / "01_a.py"
    for text in ("", "# %%\nx = 1\n", "# %% [markdown]\n# ## A section\n"):
        source.write_text(text)
        with pytest.raises(ChapterError, match="01_a: the first cell is no Markdown"):
            prepare(source, repository=REPOSITORY)


def test_chosen_chapters_are_built_beside_the_folder_of_their_sources(tmp_path):
    chapter(tmp_path, "# %%\n1")
    chapter(tmp_path, "# %%\n2", name="02_other")
    assert list(build_chapters(tmp_path, ["2"])) == [tmp_path / "02_other.ipynb"]
    assert repository_address() in read_notebook(tmp_path / "02_other.ipynb").cells[1].source


def test_the_repository_is_the_one_of_pyproject_or_of_the_installed_package(monkeypatch, tmp_path):
    address = repository_address()
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'Repository = "{address}"' in text
    monkeypatch.setattr(building, "__file__", str(tmp_path / "segedu/notebooks/build.py"))
    assert repository_address() == address
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'segedu'\n")
    with pytest.raises(InputError, match="no repository is named"):
        repository_address()


def executed(*outputs, **metadata):
    """A notebook of one cell with these outputs."""
    cell = new_code_cell("x", execution_count=1, outputs=list(outputs), metadata=metadata)
    return new_notebook(cells=[cell])


def stream(text):
    return new_output("stream", name="stdout", text=text)


@pytest.mark.parametrize(
    "text",
    [
        str(Path.home() / "x"),
        f"in {Path.home()}",
        f"'{sys.prefix}/lib'",
        f"{tempfile.gettempdir()}/tmpab1",
    ],
)
def test_no_output_may_name_a_folder_of_this_machine(text):
    [told] = set(flaws(executed(stream(text)))[:1])
    assert "cell 1 (x) shows a folder of this machine" in told
    assert flaws(executed(new_output("display_data", {"text/html": f"<b>{text}</b>"})))


def test_other_paths_may_be_named():
    assert (
        flaws(executed(stream(f"a{Path.home()} {Path.home()}s data{tempfile.gettempdir()}"))) == []
    )


def test_no_output_may_show_an_address_in_memory():
    [told] = flaws(executed(stream("<Axes at 0x7f0123456789>")))
    assert told.startswith("cell 1 (x) shows an address in memory (at 0x7f0123456789)")
    assert flaws(executed(stream("mask 0xff at 0x10"))) == []


def test_a_picture_in_text_is_read_too():
    data = {"image/svg+xml": f"<svg>{Path.home()}/a</svg>"}
    [_, told] = flaws(executed(new_output("display_data", data)))
    assert "shows a folder of this machine" in told


def test_an_image_needs_alt_text_whatever_its_format():
    image = {"image/svg+xml": "<svg/>"}
    [told] = flaws(executed(new_output("display_data", image)))
    assert told.startswith("cell 1 (x) shows an image without alt text")
    described = executed(new_output("display_data", image), alt="A square")
    tidy(described)
    assert flaws(described) == []


def test_cells_must_have_run_once_and_in_order():
    notebook = executed()
    notebook.cells.append(new_code_cell("y", execution_count=3))
    assert flaws(notebook) == ["cell 2 (y) has run as number 3, expected 2"]


def test_an_error_may_not_be_stored():
    error = new_output("error", ename="ValueError", evalue="no", traceback=[])
    assert flaws(executed(error)) == ["cell 1 (x) ends in ValueError: no"]


def test_tidying_keeps_what_is_transparent():
    file = io.BytesIO()
    Image.new("RGB", (2, 1), "red").save(file, "PNG", transparency=(255, 0, 0))
    png = base64.b64encode(file.getvalue()).decode()
    notebook = executed(new_output("display_data", {"image/png": png}))
    tidy(notebook)
    [output] = notebook.cells[0].outputs
    picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
    assert picture.convert("RGBA").getpixel((0, 0))[3] == 0


def test_tidying_takes_out_times_widgets_and_what_a_picture_says_of_its_maker():
    file = io.BytesIO()
    note = PngImagePlugin.PngInfo()
    note.add_text("Software", "Matplotlib")
    Image.new("RGB", (2, 1), "red").save(
        file, "PNG", pnginfo=note, dpi=(80, 80), icc_profile=b"maker"
    )
    png = base64.b64encode(file.getvalue()).decode()
    notebook = executed(
        new_output("display_data", {"image/png": png}),
        new_output("display_data", {WIDGET: {}, "text/plain": "IntSlider()"}),
        execution={"iopub.execute_input": "2020"},
        papermill={"duration": 1},
    )
    notebook.metadata["widgets"] = {"state": {}}
    tidy(notebook)
    [cell] = notebook.cells
    [output] = cell.outputs
    picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
    assert picture.info == {}
    assert [picture.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0)] * 2
    assert cell.metadata == {}
    assert "widgets" not in notebook.metadata
