"""Sphinx extension: the Chinese site within the English one, and what of it is not translated."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.search.zh import SearchChinese
from sphinx.transforms import SphinxTransform
from sphinx.util.nodes import NodeMatcher

from segedu.notebooks.translate import wordless

LANGUAGE = "zh_CN"
CATALOGUES = Path(__file__).resolve().parent / "locale" / LANGUAGE / "LC_MESSAGES"
NOTICES = {
    "none": "本页还没有译成中文，以下是英文原文。",
    "partly": "本页有一部分还没有译成中文：左边带虚线的段落是英文原文。",
}


class NothingToTranslate(SphinxTransform):
    """What has no words is no gap in a translation, nor what was translated before Sphinx."""

    default_priority = 24  # after Locale, before the count

    def apply(self, **_: Any) -> None:
        """Mark such nodes as translated, and pictures whose alt text is."""
        if self.config.language != LANGUAGE:
            return
        for node in list(NodeMatcher(nodes.Element, translated=Any).findall(self.document)):
            if isinstance(node, nodes.math_block | nodes.raw):
                node["translated"] = True
            elif isinstance(node, nodes.image):
                node["translated"] = any("\u4e00" <= c <= "\u9fff" for c in node.get("alt", ""))
            elif not node["translated"]:
                node["translated"] = wordless(node.rawsource or node.astext())


class Chinese(SearchChinese):
    """The search of Chinese pages; Sphinx 9.0 names a stemmer for it that there is not.

    Chinese words have no stem, and the English among them have an English one.
    """

    language_name = "English"


def say_what_is_translated(
    app: Sphinx, pagename: str, _template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Above a page that is not wholly in Chinese stands how much is; each leads to the other."""
    chinese = app.config.language == LANGUAGE
    context["chinese"] = chinese
    context["other_language"] = f"../{pagename}.html" if chinese else f"zh_CN/{pagename}.html"
    context["chinese_notebook"] = ""
    if not chinese or doctree is None:
        return
    progress = doctree.get("translation_progress", {"total": 0, "translated": 0})
    total, done = progress["total"], progress["translated"]
    part = "partly" if (CATALOGUES / f"{pagename}.po").is_file() else "none"
    if total > done or part == "none":
        notice = f'<p class="not-translated" data-translated="{done}/{total}">{NOTICES[part]}</p>'
        body = context["body"]
        if part == "none":
            body = f'<div lang="en">{body}</div>'
        context["body"] = notice + body
    elif pagename.startswith("course/"):
        context["chinese_notebook"] = f"notebooks/{pagename.removeprefix('course/')}.ipynb"


def one_copy_of_each_file(app: Sphinx, _error: Exception | None) -> None:
    """Let Chinese pages use the files of the English site around theirs, where they are equal."""
    if app.config.language != LANGUAGE:
        return
    out = Path(app.outdir)
    shared = set()
    for folder in ("_static", "_images"):
        for path in [p for p in (out / folder).rglob("*") if p.is_file()]:
            name = path.relative_to(out)
            twin = out.parent / name
            if twin.is_file() and twin.read_bytes() == path.read_bytes():
                shared.add(name.as_posix())
                path.unlink()
    named = re.compile(r"((?:\.\./)*)(_(?:static|images)/[^\"?#\s]+)")
    for page in out.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = named.sub(lambda m: f"{m[1]}../{m[2]}" if m[2] in shared else m[0], text)
        page.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls it once."""
    app.add_transform(NothingToTranslate)
    app.add_search_language(Chinese)
    app.connect("html-page-context", say_what_is_translated)
    app.connect("build-finished", one_copy_of_each_file)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
