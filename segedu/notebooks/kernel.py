"""The kernel that chapters run in: this interpreter, with a known environment."""

import os
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from segedu.errors import InputError

QUIET = "--IPKernelApp.log_level=ERROR"
STRICT = (
    "--IPKernelApp.exec_lines=import segedu.notebooks.strict as _strict; "
    "_strict.warnings_are_errors(); del _strict"
)


class ChapterError(InputError):
    """A chapter that cannot be built or run; the first line says which cell and why."""


class ChapterKernelManager(AsyncKernelManager):
    """Starts the interpreter that runs segedu, whatever kernels are registered on the machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """The one of ipykernel, which names this interpreter by its path."""
        return KernelSpec(**get_kernel_dict())

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
        """Start it in `chapter_environment()` unless another one is given."""
        await super().start_kernel(**{"env": chapter_environment(), **options})


def chapter_environment() -> dict[str, str]:
    """This process's environment, with figures inline, at the course's resolution."""
    return {
        **os.environ,
        "MATPLOTLIBRC": str(Path(__file__).with_name("matplotlibrc")),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # the debugger's warning about frozen modules
    }


def refuse_quit(*, execute_reply: Any, **_: Any) -> None:
    """A hook for nbclient that fails a cell which calls `quit()`.

    IPython ends only after the last cell then, and nbclient takes such a cell for completed.

    Raises:
        ChapterError: If the cell does.
    """
    payload = execute_reply["content"].get("payload") or []
    if any(part.get("source") == "ask_exit" for part in payload):
        raise ChapterError("calls quit()")
