"""Chapters in another language: the text of their Markdown cells from a gettext catalogue.

Code cells and outputs stay as they are. The messages are those that Sphinx finds, paragraph by
paragraph, so that the site and the notebooks share one catalogue; and besides, what Sphinx leaves:
displayed formulas, the summaries of folded answers, and the alt text of figures.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.notebooks.build import repository_address
from segedu.notebooks.chapters import find_chapters
from segedu.notebooks.document import notebook_text, read_notebook

LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")
SUMMARY = re.compile(r"(<summary>)(.*?)(</summary>)")
MATHS = ("math_block", "math_block_label", "amsmath")
DOLLARS = re.compile(r"(?<!\$)\$(?!\$)[^$]+\$|\$\$.*?\$\$", re.DOTALL)
CODE = re.compile(r"`[^`]*`")
SAID = re.compile(r"\\text\{([^{}]*)\}")
NAMES = {"log", "exp", "IoU", "Dice", "mean", "out", "mask"}
"""Words of formulas that are names, the same in every language."""

PARTLY = {
    "zh_CN": "> *本章尚有 {count} 处没有译成中文，仍以英文显示。*",
}
"""What stands below the title of a chapter of which a part is not translated."""


def build_translated(
    course: Path, catalogues: Path, language: str, chapters: Sequence[str] = ()
) -> Iterator[tuple[Path, int]]:
    """Write the translated notebook of each of the `chapters`, all that there are if none.

    They go to `course`/`language`, and are made from the stored notebooks, which are not run again.
    Yields each notebook, and how many of its parts are still in English.

    Args:
        course: The folder of the notebooks.
        catalogues: The folder of the `.po` files of that language.
        language: Such as "zh_CN".
        chapters: Numbers or names.

    Raises:
        InputError: If there is no such language, chapter or catalogue.
    """
    if language not in PARTLY or not catalogues.is_dir():
        raise InputError(f"no language {language!r}; there is {', '.join(PARTLY)}")
    stored = find_chapters(course, ".ipynb", chapters)
    there = {path.stem for path in catalogues.glob("*.po")}
    out = course / language
    out.mkdir(exist_ok=True)
    for path in stored if chapters else [p for p in stored if p.stem in there]:
        messages = read_catalogue(catalogues / f"{path.stem}.po")
        notebook, missing = translate(read_notebook(path), messages, language)
        relink(notebook, there)
        target = out / path.name
        with whole_file(target) as unfinished:
            unfinished.write_text(notebook_text(notebook), encoding="utf-8")
        yield target, len(missing)


def relink(notebook: NotebookNode, translated: Iterable[str]) -> None:
    """Make links hold, in place, from a folder below: to chapters there, or to those above."""
    here = {f"{name}.ipynb" for name in translated}

    def link(match: re.Match[str]) -> str:
        file = match[1].partition("#")[0]
        return match[0] if file in here else f"](../{match[1]})"

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(link, cell.source)


def read_catalogue(path: Path) -> dict[str, str]:
    """The translated messages of a `.po` file; those without a translation are left out.

    Raises:
        InputError: If there is no such file.
    """
    from babel.messages.pofile import read_po

    if not path.is_file():
        raise InputError(
            f"{path} is missing: this part is not translated; "
            "book/translations.py update makes the catalogue to fill in"
        )
    with path.open("rb") as file:
        found = read_po(file)
    said = {str(m.id): str(m.string) for m in found if m.id and m.string and not m.fuzzy}
    blob = f"]({repository_address()}/blob/main/"
    return said | {_linked_here(a, blob): _linked_here(b, blob) for a, b in said.items()}


def _linked_here(message: str, blob: str) -> str:
    """A message as the notebook has it: the site's links to files lead to the repository."""
    return message.replace(f"{blob}course/", "](").replace(blob, "](../")


def translate(
    notebook: NotebookNode, messages: Mapping[str, str], language: str
) -> tuple[NotebookNode, list[str]]:
    """A copy of `notebook` with its text in `language`, and what there was no translation for.

    Where a part is missing, a line below the title says so, and the part stays in English.
    """
    translated = deepcopy(notebook)
    missing: list[str] = []
    for cell in translated.cells:
        if cell.cell_type == "markdown":
            cell.source, without = _translate_text(cell.source, messages)
            missing += without
    missing += translate_rest(translated, messages)
    if missing:
        title = translated.cells[0]
        heading, _, text = title.source.partition("\n")
        title.source = f"{heading}\n\n{PARTLY[language].format(count=len(missing))}\n{text}"
    translated.metadata["language"] = language
    return translated, missing


def translate_rest(notebook: NotebookNode, messages: Mapping[str, str]) -> list[str]:
    """Translate, in place, what Sphinx leaves; returns what there was no translation for."""
    missing = [message for message in rest(notebook) if message not in messages]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = SUMMARY.sub(
                lambda m: m[1] + messages.get(m[2], m[2]) + m[3],
                cell.source,
            )
            for formula in _formulas(cell.source):
                cell.source = cell.source.replace(formula, messages.get(formula, formula))
        elif "alt" in cell.metadata:
            _set_alt(cell, messages.get(cell.metadata.alt, cell.metadata.alt))
    return missing


def rest(notebook: NotebookNode) -> list[str]:
    """The messages of a notebook that Sphinx does not find, in order and each once."""
    found: dict[str, None] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found |= dict.fromkeys(m[2] for m in SUMMARY.finditer(cell.source))
            found |= dict.fromkeys(f for f in _formulas(cell.source) if not wordless(f"$${f}$$"))
        elif "alt" in cell.metadata:
            found[cell.metadata.alt] = None
    return list(found)


def wordless(message: str) -> bool:
    """Whether a message has nothing to translate: numbers, code, and formulas without words."""
    if "$" not in message and re.search(r"\\[A-Za-z]+", CODE.sub(" ", message)):
        message = f"$${message}$$"  # a displayed formula, as it stands in a catalogue
    formulas = " ".join(DOLLARS.findall(message))
    words = [w for said in SAID.findall(formulas) for w in re.findall(r"[A-Za-z]{2,}", said)]
    outside = DOLLARS.sub(" ", CODE.sub(" ", message))
    outside = re.sub(r"\]\([^)]*\)", "]", outside)
    text = [w for w in re.findall(r"[A-Za-z]+", outside) if len(w) > 1]
    return not text and not [w for w in words if w not in NAMES]


def _formulas(source: str) -> Iterator[str]:
    for token in _parser().parse(source, {}):
        if token.type in MATHS:
            yield token.content.strip()


def _set_alt(cell: NotebookNode, alt: str) -> None:
    cell.metadata["alt"] = alt
    if "mystnb" in cell.metadata:
        cell.metadata.mystnb.image["alt"] = alt
    for output in cell.get("outputs", []):
        for about in output.get("metadata", {}).values():
            if isinstance(about, dict) and "alt" in about:
                about["alt"] = alt


def _translate_text(source: str, messages: Mapping[str, str]) -> tuple[str, list[str]]:
    """The text of a cell, translated part by part, and the parts without a translation."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    pieces, missing, at = [], [], 0
    for token in _parser().parse(source, {}):
        if token.type != "inline" or not token.content.strip() or token.map is None:
            continue
        message = " ".join(token.content.split())
        if message not in messages:
            if not (wordless(message) or message.startswith("[![")):
                missing.append(message)
            continue
        lines = (re.escape(line.strip()) for line in token.content.split("\n"))
        pattern = re.compile(r"[ \t]*\n[ \t>]*".join(lines).replace(r"\|", r"\\?\|"))
        where = pattern.search(source, max(at, starts[token.map[0]]))
        if where is None:  # the parser changed the text; it is counted, never lost
            missing.append(message)
            continue
        pieces += [source[at : where.start()], messages[message]]
        at = where.end()
    return "".join([*pieces, source[at:]]), missing


@cache
def _parser() -> Any:
    """The parser of Markdown that the site uses, with its settings."""
    from myst_parser.config.main import MdParserConfig
    from myst_parser.mdit_to_docutils.base import DocutilsRenderer
    from myst_parser.parsers.mdit import create_md_parser

    extensions = {"dollarmath", "amsmath", "colon_fence", "deflist", "attrs_block"}
    settings = MdParserConfig(enable_extensions=extensions, dmath_double_inline=True)
    return create_md_parser(settings, DocutilsRenderer)
