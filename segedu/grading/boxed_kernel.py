"""A Jupyter kernel in a sandbox, and an engine for papermill that runs notebooks in it.

The client is outside and trusts nothing: messages are bounded in size and number before they are
read, output is counted, and the kernel is ended when a clock or a cap is exceeded. The cells after
that are said not to have run, which papermill itself would call completed.
"""

import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import HBChannel
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager
from traitlets import Type

from segedu.grading import sandbox
from segedu.grading.assignment import Limits
from segedu.notebooks.document import node

WAITING = 64  # messages that may wait to be read
NOT_RUN = "not run"
SILENT = logging.getLogger(__name__)
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False


class NoHeartbeat(HBChannel):
    """Asks nothing: the manager sees itself whether the process lives.

    jupyter_client's own thread, should it ask just as a kernel ends, waits for ever to be heard,
    and whoever stops it waits for the thread.
    """

    def run(self) -> None:
        """End at once."""


class BoundedClient(AsyncKernelClient):
    """A client that drops a kernel whose message is too large, before it is in memory."""

    largest = 32 * 2**20
    hb_channel_class = Type(NoHeartbeat)

    def _context_default(self) -> zmq.asyncio.Context:
        context = super()._context_default()
        context.setsockopt(zmq.MAXMSGSIZE, self.largest)
        context.setsockopt(zmq.RCVHWM, WAITING)
        return context


class BoxedKernelManager(AsyncKernelManager):
    """Starts ipykernel in a sandbox; only a folder for its sockets is shared with it."""

    client_class = "segedu.grading.boxed_kernel.BoundedClient"
    client_factory = Type(klass="jupyter_client.KernelClient")

    def __init__(self, **options: Any) -> None:
        self._limits = options.pop("limits", None) or Limits()
        self._readable = tuple(options.pop("readable", ()))
        self._boxed = bool(options.pop("boxed", True))
        self._folder = Path(tempfile.mkdtemp(prefix="sg"))  # short: a socket's path has 107 bytes
        sockets = self._folder / "k"
        sockets.mkdir()
        sockets.chmod(0o777)  # within a folder that only we can enter
        super().__init__(
            transport="ipc",
            ip=str(sockets / "s"),
            connection_file=str(sockets / "connection.json"),
            **options,
        )
        self.client_factory = BoundedClient

    @property
    def kernel_spec(self) -> KernelSpec:
        """This interpreter's ipykernel, in a sandbox."""
        spec = KernelSpec(**get_kernel_dict())
        program = [sys.executable, "-I", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec.argv = sandbox.command(
            [*program, "--IPKernelApp.log_level=50"],
            self._limits,
            writable=[self._folder / "k"],
            readable=self._readable,
            boxed=self._boxed,
            environment={"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        )
        return spec

    def write_connection_file(self, **options: Any) -> None:
        """Write it, readable for the user that the kernel will be."""
        super().write_connection_file(**options)
        Path(self.connection_file).chmod(0o644)

    def cleanup_connection_file(self) -> None:
        """Remove it, with the folder of sockets."""
        super().cleanup_connection_file()
        shutil.rmtree(self._folder, ignore_errors=True)

    def end(self) -> None:
        """End the sandbox at once, from anywhere."""
        process = getattr(self.provisioner, "process", None)
        if process is not None:
            process.kill()


class BoxedClient(PapermillNotebookClient):  # type: ignore[misc]
    """Runs all cells, those after an error too, until a clock or a cap ends the kernel."""

    def __init__(self, nb_man: NotebookExecutionManager, limits: Limits, **options: Any) -> None:
        super().__init__(nb_man, **options)
        self._limits = limits
        self._said = 0
        self.ended = ""

    def papermill_execute_cells(self) -> None:
        """Run one cell after another; what ends the kernel is noted in `ended`."""
        deadline = time.monotonic() + self._limits.notebook_seconds
        for index, cell in enumerate(self.nb.cells):
            self.nb_man.cell_start(cell, index)
            try:
                if time.monotonic() > deadline:
                    self._end("the notebook took too long")
                else:
                    self.execute_cell(cell, index)
            except CellTimeoutError:
                self._end("the cell took too long")
            except DeadKernelError:
                self._end(self.ended or "the code ended its own process")
            except Exception:  # noqa: BLE001 - the messages come from the student's process
                self._end(self.ended or "the kernel sent what is no message")
            self.nb_man.cell_complete(cell, cell_index=index)
            if self.ended:
                _mark(cell, self.ended)
                for later in self.nb.cells[index + 1 :]:
                    _mark(later, NOT_RUN)
                raise DeadKernelError(self.ended)  # so that nothing more is asked of it

    def process_message(self, message: Any, *arguments: Any, **named: Any) -> Any:
        """Count what the notebook says before it is kept."""
        self._said += len(str(message.get("content", "")))
        if self._said > self._limits.output_mb * 2**20:
            self._end("the notebook printed too much")
            return None
        return super().process_message(message, *arguments, **named)

    def _end(self, why: str) -> None:
        self.ended = self.ended or why
        self.km.end()


class BoxedEngine(NBClientEngine):  # type: ignore[misc]
    """papermill's engine "segedu": `papermill in.ipynb out.ipynb --engine segedu`."""

    @classmethod
    def execute_notebook(cls, nb: NotebookNode, *arguments: Any, **options: Any) -> NotebookNode:
        """Run a notebook, and say of each cell what is so, whatever papermill has noted."""
        executed = super().execute_notebook(nb, *arguments, **options)
        for cell in executed.cells:
            status = cell.metadata.get("segedu", {}).get("status")
            if status and "papermill" in cell.metadata:
                cell.metadata.papermill["status"] = "pending" if status == NOT_RUN else "failed"
        return executed

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        *,
        limits: Limits | None = None,
        readable: tuple[Path, ...] = (),
        start_timeout: int = 60,
        boxed: bool = True,
        **_: Any,
    ) -> NotebookNode:
        """Run the notebook that `nb_man` holds in a sandbox, or without one if not `boxed`."""
        if boxed:
            sandbox.refuse_without_sandbox()
        else:
            sandbox.refuse_unsafe_in_ci()
        allowed = limits or Limits()
        manager = BoxedKernelManager(limits=allowed, readable=readable, boxed=boxed)
        client = BoxedClient(
            nb_man,
            allowed,
            km=manager,
            kernel_name=kernel_name,
            log=SILENT,
            timeout=allowed.cell_seconds,
            startup_timeout=start_timeout,
            allow_errors=True,
            allow_error_names=[],
            store_widget_state=False,
            coalesce_streams=True,
        )
        try:
            return _executed(client)
        finally:
            manager.end()
            manager.cleanup_connection_file()


def _executed(client: BoxedClient) -> NotebookNode:
    """Run it; once the kernel has been ended, asking it anything more fails, as it should."""
    try:
        return client.execute(cleanup_kc=True)
    except Exception:
        if client.ended:
            return client.nb
        raise


def _mark(cell: NotebookNode, status: str) -> None:
    """Say in a code cell's metadata and outputs why it has no result of its own."""
    if cell.cell_type != "code" or not cell.source.strip():
        return
    cell.metadata["segedu"] = node(status=status)
    cell.outputs = [
        *cell.get("outputs", []),
        node(output_type="stream", name="stderr", text=f"[{status}]\n"),
    ]
