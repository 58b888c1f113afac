"""A student's cells as harmless HTML: code as coloured text, Markdown without links, few outputs.

Whatever a cell holds becomes text. Of outputs only text and PNG pictures of a bounded size are
shown; everything else is said to be there.
"""

import base64
import binascii
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup, escape
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from segedu.grading.tables import seen

MOST_SOURCE = 50_000
LONGEST_LINE = 500
MOST_TEXT = 10_000
MOST_OUTPUTS = 20
MOST_PICTURE = 500_000
MOST_PICTURES = 5_000_000
WIDEST_PICTURE = 4000
PNG = b"\x89PNG\r\n\x1a\n"
CUT = "\n[cut off here]"
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(frozen=True)
class Output:
    """One output of a cell: a text, or a picture, or a note on what is not shown.

    Attributes:
        text: What was printed, or a traceback, or a note.
        picture: A `data:` address of a PNG; "" if it is none.
        is_note: Whether the text is ours.
    """

    text: str = ""
    picture: str = ""
    is_note: bool = False


@dataclass(frozen=True)
class ShownCell:
    """A cell as a page shows it.

    Attributes:
        kind: "code" or "text".
        question: The question that it answers or tests; "" for any other.
        body: Its source as harmless HTML.
        outputs: Its outputs.
    """

    kind: str
    question: str
    body: Markup
    outputs: tuple[Output, ...] = ()


class Shower:
    """Shows the cells of one notebook, and keeps count of its pictures."""

    def __init__(self) -> None:
        self._left = MOST_PICTURES

    def cells(self, notebook: Mapping[str, Any]) -> list[ShownCell]:
        """All cells of a notebook that have anything in them."""
        return [self._cell(cell) for cell in notebook["cells"] if cell["source"].strip()]

    def _cell(self, cell: Mapping[str, Any]) -> ShownCell:
        about = cell["metadata"].get("segedu", {})
        question = str(about.get("question", ""))
        if cell["cell_type"] != "code":
            return ShownCell("text", question, text_html(cell["source"]))
        outputs = tuple(self._outputs(cell.get("outputs", [])))
        return ShownCell("code", question, code_html(cell["source"]), outputs)

    def _outputs(self, outputs: Iterable[Mapping[str, Any]]) -> list[Output]:
        shown = [self._output(output) for output in list(outputs)[:MOST_OUTPUTS]]
        left = max(0, len(list(outputs)) - MOST_OUTPUTS)
        note = [Output(f"{left} more outputs", is_note=True)] if left else []
        return shown + note

    def _output(self, output: Mapping[str, Any]) -> Output:
        kind = output.get("output_type")
        if kind == "stream":
            return Output(plain(output.get("text", "")))
        if kind == "error":
            return Output(plain("\n".join(map(str, output.get("traceback", [])))))
        data = output.get("data", {})
        picture = self._picture(data["image/png"]) if "image/png" in data else ""
        if picture:
            return Output(str(data.get("text/plain", ""))[:200], picture)
        if "text/plain" in data:
            return Output(plain(data["text/plain"]))
        return Output(f"not shown here: {', '.join(sorted(map(str, data))) or kind}", is_note=True)

    def _picture(self, encoded: Any) -> str:
        """A PNG as an address of its own; "" if it is none, too large, or one too many."""
        try:
            content = base64.b64decode(re.sub(r"\s", "", str(encoded)), validate=True)
        except (binascii.Error, ValueError):
            return ""
        if not content.startswith(PNG) or not 33 <= len(content) <= min(MOST_PICTURE, self._left):
            return ""
        if max(struct.unpack(">II", content[16:24])) > WIDEST_PICTURE:
            return ""
        self._left -= len(content)
        return "data:image/png;base64," + base64.b64encode(content).decode()


def plain(text: Any) -> str:
    """Text without terminal colours or anything unseen, cut off where it is long."""
    joined = "".join(map(str, text)) if isinstance(text, list) else str(text)
    return _cut(seen(_ANSI.sub("", joined[: 2 * MOST_TEXT])), MOST_TEXT)


def code_html(source: str) -> Markup:
    """Code as coloured text; without colours where a line is so long that colouring takes long."""
    if max(map(len, source.split("\n"))) > LONGEST_LINE:
        return escape(_cut(seen(source), MOST_SOURCE) + "\n")
    lexer, formatter = get_lexer_by_name("ipython3"), HtmlFormatter(nowrap=True)
    text = highlight(_cut(seen(source), MOST_SOURCE), lexer, formatter)
    return Markup(text)  # Pygments escapes it


def text_html(source: str) -> Markup:
    """Markdown as HTML without links, pictures and HTML of its own; headings below the page's."""
    text = _markdown().render(_cut(seen(source), MOST_SOURCE))
    return Markup(text)  # markdown-it escapes all HTML in it


def code_style() -> str:
    """The style sheet of coloured code, for a light and for a dark page."""
    light = HtmlFormatter(style="default").get_style_defs(".code")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".code")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"


@cache
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.core.ruler.push("only_text", _only_text)
    return parser


def _only_text(state: Any) -> None:
    """Lower headings below the page's own, and leave of links and pictures what they say."""
    for token in state.tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        token.attrs.pop("style", None)  # of a table's cells; the policy allows none
        for part in token.children or ():
            if part.type == "image":
                part.type, part.tag, part.children = "text", "", None
        token.children = [c for c in token.children or () if not c.type.startswith("link_")]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + CUT
