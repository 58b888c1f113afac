"""A course of tiny chapters in a temporary folder."""

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from segedu.notebooks.document import KERNELSPEC


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Path]:
    """Makes a notebook from the sources of its cells; the first is its `parameters` cell."""

    def make(name: str, *sources: str) -> Path:
        cells = [new_code_cell(source) for source in sources]
        cells[0].metadata["tags"] = ["parameters"]
        path = tmp_path / "course" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        document = new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC})
        nbformat.write(document, path)
        return path

    return make
