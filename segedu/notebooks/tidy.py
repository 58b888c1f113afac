"""Make an executed notebook's outputs the same on every machine, or say why they are not."""

import base64
import io
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode
from PIL import Image

from segedu.notebooks.document import name_cell, node, own_metadata

WIDGET = "application/vnd.jupyter.widget-view+json"


def tidy(notebook: NotebookNode) -> None:
    """Take out, in place, what differs from one run to the next, and give images their alt text.

    Widgets' outputs go: without their state they show nothing, and with it they are large.
    """
    notebook.metadata = own_metadata()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps
        cell.metadata.pop("papermill", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
            _strip_pngs(cell)
            describe_images(cell)


def describe_images(cell: NotebookNode) -> None:
    """Put the cell's `alt` text where viewers look for it: beside each of its images."""
    for output, mime in _images(cell):
        if "alt" in cell.metadata:
            output.metadata.setdefault(mime, node())["alt"] = cell.metadata.alt


def flaws(notebook: NotebookNode) -> list[str]:
    """What keeps an executed notebook from being stored: one sentence for each flaw.

    Every cell must have run, once and in order, without an error; every image needs alt text; no
    output may name a folder of this machine or an address in memory.
    """
    found = []
    count = 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            count += 1
            found += [f"{name_cell(notebook, index)} {flaw}" for flaw in _cell_flaws(cell, count)]
    return found


def _cell_flaws(cell: NotebookNode, count: int) -> Iterator[str]:
    if cell.execution_count != count:
        yield f"has run as number {cell.execution_count}, expected {count}"
    errors = [output for output in cell.outputs if output.output_type == "error"]
    yield from (f"ends in {error.ename}: {error.evalue}" for error in errors)
    if any(not output.metadata.get(mime, {}).get("alt") for output, mime in _images(cell)):
        yield 'shows an image without alt text; write # %% alt="what is to be seen" above it'
    for text in _texts(cell):
        for private in _private_places():
            if re.search(rf"(?<![\w./-]){re.escape(private)}(?![\w-])", text):
                yield f"shows a folder of this machine, {private}"
        if address := re.search(r"\bat 0x[0-9a-f]{6,}", text):
            yield f"shows an address in memory ({address[0]}); end its last line with a semicolon"


def _private_places() -> set[str]:
    """Folders that no output may name; a root directory would be found everywhere."""
    places = [Path.home(), Path.cwd(), Path(sys.prefix), Path(tempfile.gettempdir())]
    return {str(place) for path in places for place in (path, path.resolve()) if path.name}


def _images(cell: NotebookNode) -> Iterator[tuple[NotebookNode, str]]:
    """Each image among the cell's outputs, as the output and the image's type."""
    for output in cell.outputs:
        yield from ((output, mime) for mime in output.get("data", {}) if mime.startswith("image/"))


def _texts(cell: NotebookNode) -> Iterator[str]:
    """Every text among the cell's outputs."""
    for output in cell.outputs:
        yield output.get("text", "")
        data = output.get("data", {})
        yield from (str(data[mime]) for mime in data if not mime.startswith("image/"))
        yield data.get("image/svg+xml", "")


def _strip_pngs(cell: NotebookNode) -> None:
    """Write each PNG anew with its pixels alone: no program's name, version or date."""
    for output, mime in _images(cell):
        if mime == "image/png":
            picture = Image.open(io.BytesIO(base64.b64decode(output.data[mime])))
            picture.load()
            picture.info = {k: v for k, v in picture.info.items() if k == "transparency"}
            file = io.BytesIO()
            picture.save(file, "PNG", optimize=True)
            output.data[mime] = base64.b64encode(file.getvalue()).decode()
