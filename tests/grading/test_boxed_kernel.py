import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.exceptions import PapermillExecutionError

from segedu.grading import boxed_kernel, graded_copy  # noqa: F401 - the second registers the engine
from segedu.grading.assignment import Limits

pytestmark = pytest.mark.usefixtures("sandboxed")
LIMITS = Limits(cell_seconds=2, notebook_seconds=20, memory_gb=2, processes=32, output_mb=1)


@pytest.fixture
def ran(tmp_path, sandboxed, monkeypatch):
    """Run cells with the engine; returns the copy, as it lies on the disk."""
    own = tempfile.TemporaryDirectory(prefix="k")  # of a short path; others grade beside us
    monkeypatch.setattr(tempfile, "tempdir", own.name)

    def run(*sources, limits=LIMITS):
        cells = [new_code_cell(source) for source in sources]
        nbformat.write(
            new_notebook(cells=[new_markdown_cell("# x"), *cells]), tmp_path / "in.ipynb"
        )
        with suppress(PapermillExecutionError):
            papermill.execute_notebook(
                tmp_path / "in.ipynb",
                tmp_path / "out.ipynb",
                engine_name="segedu",
                kernel_name="python3",
                progress_bar=False,
                limits=limits,
            )
        assert list(Path(own.name).glob("sg*")) == []
        made = nbformat.read(tmp_path / "out.ipynb", 4)
        return [c for c in made.cells if c.cell_type == "code"]

    yield run
    own.cleanup()


def texts(cell):
    return "".join(output.get("text", output.get("ename", "")) for output in cell.outputs)


def test_cells_run_as_nobody_with_nothing_of_this_machine_in_sight(ran):
    first, second = ran(
        "import os\nprint(os.getuid() != 0, os.listdir('/root') if os.path.isdir('/root') else [])",
        "print(os.path.exists('/etc/passwd'), os.environ.get('SEGEDU_DATA'))",
    )
    assert texts(first).startswith("True")
    assert texts(second) == "False None\n"


def test_cells_after_an_error_run_all_the_same(ran):
    first, second = ran("1 / 0", "print(2)")
    assert "ZeroDivisionError" in texts(first)
    assert texts(second) == "2\n"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import os; os._exit(0)", "the code ended its own process"),
        ("import ctypes; ctypes.string_at(0)", "the code ended its own process"),
        ("while True: pass", "the cell took too long"),
        ("print('x' * 20_000_000)", "the notebook printed too much"),
    ],
)
def test_what_ends_the_kernel_is_said_and_the_rest_has_not_run(ran, source, why):
    begun = time.monotonic()
    first, second, third = ran("x = 1", source, "print(2)")
    assert time.monotonic() - begun < 15
    assert first.metadata.papermill.status == "completed"
    assert second.metadata.segedu.status == why
    assert second.metadata.papermill.status == "failed"
    assert f"[{why}]" in texts(second)
    assert third.metadata.papermill.status == "pending"
    assert texts(third) == "[not run]\n"
    assert len(str(second.outputs)) < 2_000_000


def test_endless_output_is_ended_by_the_cap_or_the_clock_and_not_kept(ran):
    first, second = ran("while True: print('x' * 1000)", "print(2)")
    assert first.metadata.segedu.status in (
        "the notebook printed too much",
        "the cell took too long",
    )
    assert len(str(first.outputs)) < 2_000_000
    assert texts(second) == "[not run]\n"


def test_sys_exit_and_input_end_nothing(ran):
    cells = ran("import sys; sys.exit(0)", "input()", "print(2)")
    assert "SystemExit" in texts(cells[0])
    assert "StdinNotImplementedError" in texts(cells[1])
    assert texts(cells[2]) == "2\n"


def test_the_whole_notebook_has_a_clock(ran):
    slow = "import time; time.sleep(0.8)"
    cells = ran(
        *[slow] * 4, "print(2)", limits=Limits(cell_seconds=10, notebook_seconds=1, memory_gb=2)
    )
    assert any(
        c.metadata.get("segedu", {}).get("status") == "the notebook took too long" for c in cells
    )
    assert texts(cells[-1]) == "[not run]\n"


def test_garbled_messages_end_only_this_notebook(ran):
    garble = (
        "import json, zmq, glob\n"
        "from ipykernel.kernelapp import IPKernelApp\n"
        "app = IPKernelApp.instance()\n"
        "app.session.send = lambda *a, **k: None\n"
        "app.shell_socket.send_multipart([b'x', b'<IDS|MSG>', b'bad', b'{', b'{', b'{', b'{'])"
    )
    first, second = ran(garble, "print(2)")
    assert first.metadata.segedu.status in (
        "the cell took too long",
        "the kernel sent what is no message",
    )
    assert texts(second) == "[not run]\n"


def test_papermills_own_command_knows_the_engine(tmp_path, sandboxed):
    nbformat.write(
        new_notebook(cells=[new_code_cell("import os; print(os.getuid())")]), tmp_path / "a.ipynb"
    )
    command = [
        sys.executable,
        "-m",
        "papermill",
        "a.ipynb",
        "b.ipynb",
        "--engine",
        "segedu",
        "-k",
        "python3",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (cell,) = nbformat.read(tmp_path / "b.ipynb", 4).cells
    assert int(texts(cell)) != 0 or os.getuid() != 0


def test_a_fault_of_our_own_is_not_taken_for_the_notebooks(monkeypatch):
    def broken(_client, **_):
        raise ValueError("ours")

    monkeypatch.setattr(boxed_kernel.BoxedClient, "execute", broken)
    client = boxed_kernel.BoxedClient.__new__(boxed_kernel.BoxedClient)
    client.ended = ""
    with pytest.raises(ValueError, match="ours"):
        boxed_kernel._executed(client)


def test_no_thread_waits_for_the_heart_of_a_kernel_that_is_dead(tmp_path):
    client = boxed_kernel.BoundedClient(transport="ipc", ip=str(tmp_path / "nobody"), hb_port=1)
    client.hb_channel.start()
    client.hb_channel.join(10)
    assert not client.hb_channel.is_alive()
    client.hb_channel.stop()
