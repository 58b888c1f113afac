import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from segedu.errors import InputError
from segedu.notebooks.document import read_notebook
from segedu.notebooks.execution import stopped_at
from segedu.notebooks.run import Record, format_table, run, run_chapters

HUNDRED_MB = "block = bytearray(b'1' * 100_000_000)"

SOURCES = {
    "01_good": [
        "seed = 0\nname = 'a'",
        f"import os, sys, time\n{HUNDRED_MB}\ntime.sleep(0.5)\nprint(os.getcwd(), sys.prefix, seed)",  # noqa: E501
        "from segedu.check import check\ncheck('one', 1, 1)\ncheck('two', 2, 2)\nprint('a ✓ b')",
        "",
    ],
    "02_error": ["seed = 0", "1 / seed", "print('after')"],
    "03_exit": ["seed = 0", "import sys; sys.exit()", "print('after')"],
    "04_quit": ["seed = 0", "quit()", "print('after')"],
    "05_death": ["seed = 0", "import os; os._exit(0)", "print('after')"],
    "06_slow": ["seed = 0", "import time; time.sleep(30)"],
    "07_last": ["seed = 0", "print('after all')"],
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A course of good and bad chapters, run once where another kernel is registered."""
    folder = tmp_path_factory.mktemp("ran")
    for name, sources in SOURCES.items():
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        cells[0].metadata["tags"] = ["parameters"]
        (folder / "course").mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "course" / f"{name}.ipynb")
    foreign = folder / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["no-such-python"], "display_name": "Python 3", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    notebooks = sorted((folder / "course").glob("*.ipynb"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        records = list(run(notebooks, parameters={}, output=folder / "out", patience=2))
    return folder, {record.chapter: record for record in records}


def printed(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return "".join(output.get("text", "") for cell in cells for output in cell.outputs)


def test_a_chapter_runs_in_its_own_folder_on_this_interpreter_whatever_is_registered(ran):
    folder, records = ran
    assert records["01_good"].failure is None
    place = f"{os.path.realpath(folder / 'course')} {sys.prefix} 0\n"
    assert place in printed(read_notebook(folder / "out" / "01_good.ipynb"))


def test_checks_are_counted_by_the_lines_that_they_print(ran):
    assert ran[1]["01_good"].checks_passed == 2
    assert ran[1]["07_last"].checks_passed == 0


def test_peak_memory_is_that_of_the_kernel(ran):
    good, last = ran[1]["01_good"], ran[1]["07_last"]
    assert good.peak_bytes > last.peak_bytes + 80_000_000
    assert good.peak_bytes < 1_000_000_000


def test_a_chapters_time_is_its_own(ran):
    assert 0.5 < ran[1]["01_good"].seconds < 30


@pytest.mark.parametrize(
    ("chapter", "told"),
    [
        ("02_error", "cell 2 (1 / seed) fails with ZeroDivisionError: division by zero"),
        ("03_exit", "cell 2 (import sys; sys.exit()) calls sys.exit()"),
        ("04_quit", "cell 2 (quit()) calls quit()"),
        (
            "05_death",
            "cell 2 (import os; os._exit(0)) ended its kernel (a crash, or no memory left)",
        ),
        ("06_slow", "cell 2 (import time; time.sleep(30)) took more than 2 seconds"),
    ],
)
def test_a_chapter_that_ends_early_has_failed_and_its_copy_shows_how_far_it_came(
    ran, chapter, told
):
    folder, records = ran
    assert records[chapter].failure == told
    assert "after" not in printed(read_notebook(folder / "out" / f"{chapter}.ipynb"))


def test_a_failing_chapter_does_not_stop_the_others(ran):
    assert list(ran[1]) == list(SOURCES)
    assert ran[1]["07_last"].failure is None


def test_a_copy_keeps_no_note_of_papermill(ran):
    copy = read_notebook(ran[0] / "out" / "01_good.ipynb")
    assert "papermill" not in copy.metadata
    assert not any("papermill" in cell.metadata for cell in copy.cells)


def test_nothing_but_whole_copies_is_left_in_the_output_folder(ran):
    assert {path.stem for path in (ran[0] / "out").iterdir()} == set(SOURCES)


def test_parameters_reach_the_chapters_that_have_them(notebook, tmp_path, capsys):
    course = notebook("01_one", "seed = 0\nsize = 1", "print(seed, size)").parent
    notebook("02_two", "seed = 0", "print(seed)")
    (tmp_path / "p.yml").write_text("all: {seed: 3}\n1: {size: 2}\n")
    out = tmp_path / "a" / "out"
    records = list(run_chapters(course, parameters_file=tmp_path / "p.yml", output=out))
    assert [record.failure for record in records] == [None, None]
    assert printed(read_notebook(out / "01_one.ipynb")) == "3 2\n"
    assert printed(read_notebook(out / "02_two.ipynb")) == "3\n"
    bar = capsys.readouterr()
    assert bar.out == ""
    assert "02_two: 100%" in bar.err
    assert "4/4" in bar.err


def test_a_chosen_chapter_runs_alone_with_its_own_values(notebook, tmp_path):
    course = notebook("01_one", "seed = 7", "print(seed)").parent
    notebook("02_two", "seed = 0")
    [record] = run_chapters(course, ["1"], output=tmp_path / "out")
    assert (record.chapter, record.failure) == ("01_one", None)
    assert printed(read_notebook(tmp_path / "out" / "01_one.ipynb")) == "7\n"


def test_a_cell_that_never_ran_is_a_failure_whatever_papermill_says(notebook):
    executed = read_notebook(notebook("01_one", "seed = 0", "", "print(seed)"))
    executed.cells[0].execution_count = 1
    assert stopped_at(executed) == "cell 3 (print(seed)) has not run"


def test_a_bad_value_fails_in_the_cell_of_given_parameters_and_the_bar_goes_on(
    notebook, tmp_path, capsys
):
    path = notebook("01_one", "seed = 0", "print(seed)")
    values = {"01_one": {"not a name": 1}}
    [record] = run([path], parameters=values, output=tmp_path / "out")
    assert record.failure is not None
    assert record.failure.startswith("the cell of given parameters fails with SyntaxError")
    assert "2/2" in capsys.readouterr().err


def test_a_kernel_that_does_not_start_is_a_failure(notebook, tmp_path, monkeypatch):
    path = notebook("01_one", "seed = 0")
    monkeypatch.setattr(
        "segedu.notebooks.kernel.get_kernel_dict",
        lambda: {"argv": [sys.executable, "-c", "raise SystemExit(3)"], "language": "python"},
    )
    [record] = run([path], parameters={}, output=tmp_path / "out")
    assert record.failure is not None
    assert record.failure.startswith("the kernel ")


def test_nothing_runs_when_a_chapter_or_parameter_is_unknown(notebook, tmp_path):
    course = notebook("01_one", "seed = 0").parent
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no chapter '9'; there are 01_one"):
        next(run_chapters(course, ["9"], output=out))
    (tmp_path / "p.yml").write_text("1: {sed: 3}\n")
    with pytest.raises(InputError, match="01_one has a parameter 'sed'; there are seed"):
        next(run_chapters(course, parameters_file=tmp_path / "p.yml", output=out))
    assert not out.exists()


def test_the_course_itself_is_never_overwritten(notebook):
    course = notebook("01_one", "seed = 0").parent
    with pytest.raises(InputError, match="holds the course itself"):
        next(run_chapters(course, output=course / "." / ".." / course.name))


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent in another way there")
def test_ctrl_c_leaves_whole_copies_of_the_chapters_before_and_no_kernel(notebook, tmp_path):
    course = notebook("01_one", "seed = 0", "print('whole')").parent
    notebook("02_two", "seed = 0", "open('begun', 'w').close()\nimport time; time.sleep(60)")
    script = (
        "import sys\nfrom pathlib import Path\nfrom segedu.notebooks.run import run_chapters\n"
        "try:\n    list(run_chapters(Path('course'), output=Path('out')))\n"
        "except KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        wait_for(course / "begun")
        kernels = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["01_one.ipynb"]
    assert printed(read_notebook(tmp_path / "out" / "01_one.ipynb")) == "whole\n"
    assert kernels
    assert psutil.wait_procs(kernels, timeout=10)[1] == []


def wait_for(path: Path, patience: float = 60):
    start = time.monotonic()
    while not path.exists():
        assert time.monotonic() - start < patience
        time.sleep(0.05)


def test_the_table_has_a_row_for_each_chapter_their_sum_and_every_failure_in_full():
    records = [
        Record("01_first", 9.54, 600_000_000, 12, None),
        Record("02_masks_and_data", 100, 1_200_000_000, 3, "cell 2 (x) fails with E: m"),
    ]
    assert format_table(records).splitlines() == [
        "chapter               time   memory  checks",
        "01_first             9.5 s  0.60 GB      12",
        "02_masks_and_data  100.0 s  1.20 GB       3  failed",
        "all 2              109.5 s  1.20 GB      15",
        "02_masks_and_data: cell 2 (x) fails with E: m",
    ]


def test_a_table_of_nothing_has_no_chapter():
    assert format_table([]).splitlines()[1:] == ["all 0    0.0 s  0.00 GB       0"]
