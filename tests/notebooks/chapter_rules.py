"""What every chapter must have, as functions that name what one lacks."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from segedu.notebooks.document import name_cell, tags_of
from segedu.notebooks.kernel import QUIET, ChapterKernelManager, chapter_environment

CHAPTERS = [
    "01_first_segmentation",
    "02_masks_and_data",
    "03_thresholds_and_edges",
    "04_regions_and_superpixels",
    "05_convolution_arithmetic",
    "06_cross_entropy",
    "07_overlap_losses",
    "08_metrics",
    "09_fcn",
    "10_unet",
    "11_training",
    "12_context",
    "13_crf",
    "14_transfer",
    "15_transformers",
    "16_boxes_and_anchors",
    "17_region_proposals",
    "18_mask_rcnn",
    "19_instance_metrics",
    "20_gpu_training",
    "21_many_gpus",
    "22_deploy",
]
LONGEST = 15  # lines of a code cell
EXERCISE_PARTS = ["exercise", "exercise-check", "solution"]
CHECKED = re.compile(r"exercise\.check\((\w+)\)\s*\Z")


def missing_parts(notebook: NotebookNode) -> Iterator[str]:
    """The parts that every chapter has, of those that this one lacks."""
    markdown = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    text = "\n".join(markdown)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    if "you will be able to" not in markdown[0].lower():
        yield 'goals in the first cell: "You will be able to ..."'
    if "](https://colab.research.google.com/" not in markdown[0]:
        yield "the badge"
    for heading in ("What goes wrong", "Summary"):
        if not any(heading.lower() in found.lower() for found in headings):
            yield f"a heading {heading!r}"
    if "in the article" not in text.lower():
        yield 'a part "In the article"'
    if text.count("<details>") < 3:
        yield "three questions with answers folded in <details>"


def parameter_faults(notebook: NotebookNode) -> Iterator[str]:
    """What is wrong with the cell of parameters."""
    cells = [cell for cell in notebook.cells if "parameters" in tags_of(cell)]
    if len(cells) != 1:
        yield f"{len(cells)} cells are tagged parameters, expected one"
    for statement in (line for cell in cells for line in ast.parse(cell.source).body):
        try:
            ast.literal_eval(statement.value)
        except (AttributeError, ValueError):
            yield f"a parameter is no plain value: {ast.unparse(statement)}"


def exercise_faults(notebook: NotebookNode) -> Iterator[str]:
    """What is wrong with the order, number and form of the exercises."""
    parts = [
        (part, cell)
        for cell in notebook.cells
        for part in EXERCISE_PARTS
        if part in tags_of(cell) and cell.cell_type == "code"
    ]
    count = len(parts) // 3
    if [part for part, _ in parts] != EXERCISE_PARTS * count or not 2 <= count <= 4:
        yield f"2 to 4 exercises, each {', '.join(EXERCISE_PARTS)}; got {[p for p, _ in parts]}"
    for part, cell in parts:
        if part != "exercise" and not CHECKED.search(cell.source):
            yield f"a cell tagged {part} does not end in exercise.check(NAME)"
        if part == "exercise-check" and "exercise = Exercise(" not in cell.source:
            yield "a cell tagged exercise-check makes no exercise = Exercise(...)"


def long_cells(notebook: NotebookNode) -> Iterator[str]:
    """Code cells that a reader cannot take in at once."""
    for index, cell in enumerate(notebook.cells):
        lines = len(cell.source.strip().splitlines())
        is_folded = {"exercise-check", "solution"} & set(tags_of(cell))
        if cell.cell_type == "code" and lines > LONGEST and not is_folded:
            yield f"{name_cell(notebook, index)} has {lines} lines, of at most {LONGEST}"


def site_only_syntax(notebook: NotebookNode) -> Iterator[str]:
    """MyST's directives and roles, which show as they are anywhere but on the site."""
    pattern = re.compile(r"^\s*(:{3,}|`{3,}\{)|\{[\w:-]+\}`", re.MULTILINE)
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and (found := pattern.search(cell.source)):
            yield f"{name_cell(notebook, index)} has {found[0].strip()}"


def broken_links(notebook: NotebookNode, folder: Path) -> Iterator[str]:
    """Relative links that lead to no file in `folder` and to no chapter of the syllabus."""
    chapters = {f"{name}.ipynb" for name in CHAPTERS}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)\s]+)", cell.source):
                target = link.split("#")[0]
                is_elsewhere = not target or re.match(r"[a-z]+:", target)
                if not is_elsewhere and target not in chapters and not (folder / target).exists():
                    yield f"a link leads nowhere: {link}"


def prove_exercises(notebook: NotebookNode, values: Mapping[str, Any], folder: Path) -> None:
    """Run the chapter; raises unless each exercise tells its stub, solution and mistakes apart."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        name = CHECKED.search(cell.source)
        if "parameters" in tags_of(cell):
            given = [f"{parameter} = {value!r}" for parameter, value in values.items()]
            cells.append(new_code_cell("\n".join(given)))
        elif name and "exercise-check" in tags_of(cell):
            cells.append(new_code_cell(f"exercise.prove({name[1]})"))
        elif name and "solution" in tags_of(cell):
            verdict = f"exercise.verdict({name[1]})"
            cells.append(new_code_cell(f"assert {verdict} == 'right', {verdict}"))
    notebook.cells = cells
    environment = chapter_environment()
    environment.pop("SEGEDU_DATA", None)
    client = NotebookClient(
        notebook, timeout=600, kernel_manager_class=ChapterKernelManager, extra_arguments=[QUIET]
    )
    client.execute(cwd=str(folder), env=environment)
