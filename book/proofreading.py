"""Whether a translation into Chinese says the same things, in the glossary's terms, as Markdown."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from segedu.notebooks.translate import CODE, DOLLARS, SAID, wordless

BOOK = Path(__file__).resolve().parent
CHINESE = "\u4e00-\u9fff"
HALF_WIDTH = re.compile(rf"[{CHINESE}]\s?[,;:?!()]|[,;:?!()]\s?[{CHINESE}]|[{CHINESE}]\.")
CROWDED = re.compile(rf"[{CHINESE}][A-Za-z0-9]|[A-Za-z0-9][{CHINESE}]")
YEAR = re.compile(r"\b(19|20)\d\d\b")
MARKDOWN = MarkdownIt().enable("table").use(dollarmath_plugin)


def faults(english: str, chinese: str, comments: Sequence[str] = ()) -> list[str]:
    """What differs in `chinese` that must not, and how it is badly written; [] if nothing.

    A comment `not the term: WORD` of the catalogue exempts a word that is no term there.
    """
    if chinese == english:
        words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\]\([^)]*\)", "]", english))
        untouched = wordless(english) or YEAR.search(english) or "`" in english
        return [] if untouched or len(words) < 3 else ["is not translated"]
    found = [*_changed(english, chinese), *_written(chinese)]
    exempt = {c.partition("not the term:")[2].strip() for c in comments if "not the term:" in c}
    return found + [f for term, f in _terms_missed(english, chinese).items() if term not in exempt]


def _changed(english: str, chinese: str) -> list[str]:
    """Code, formulas, link targets and numbers that the two do not share."""
    found = []
    for what, parts in (("code", _code), ("formula", _formulas), ("link", _links)):
        lost, new = parts(english) - parts(chinese), parts(chinese) - parts(english)
        found += [f"lacks the {what} {part}" for part in lost]
        found += [f"has another {what}: {part}" for part in new]
    lost = _numbers(english) - _numbers(chinese)
    return found + [f"lacks the number {number}" for number in lost]


def _code(text: str) -> Counter[str]:
    return Counter(CODE.findall(text))


def _formulas(text: str) -> Counter[str]:
    """Formulas without what their words say, which is translated."""
    return Counter(SAID.sub("", f).replace(" ", "") for f in DOLLARS.findall(CODE.sub("", text)))


def _links(text: str) -> Counter[str]:
    return Counter(re.findall(r"\]\(([^)]*)\)", text))


def _numbers(text: str) -> set[str]:
    """Numbers of at least two digits outside of code, formulas and links."""
    plain = re.sub(r"\]\([^)]*\)", "]", DOLLARS.sub(" ", CODE.sub(" ", text)))
    return {n.strip(".,") for n in re.findall(r"\d[\d,.]*\d", plain)}


def _written(chinese: str) -> list[str]:
    """Marks of emphasis that do not work, half-width punctuation, letters without a space."""
    words = [
        child.content
        for token in MARKDOWN.parse(chinese)
        for child in token.children or []
        if child.type == "text"
    ]
    found = []
    if any("**" in word or re.search(r"(?<!\w)\*\w|\w\*(?!\w)", word) for word in words):
        found.append("shows a * of emphasis: no punctuation beside the inside of it")
    plain = " ".join(words)
    found += [f"has half-width punctuation: {m[0]!r}" for m in HALF_WIDTH.finditer(plain)]
    found += [f"needs a space: {m[0]!r}" for m in CROWDED.finditer(plain)]
    return found


def _terms_missed(english: str, chinese: str) -> dict[str, str]:
    """The terms of `english` that `chinese` does not have, longer ones first."""
    text = re.sub(r"\]\([^)]*\)", "]", DOLLARS.sub(" ", CODE.sub(" ", english))).lower()
    missed = {}
    for term, ways in terms().items():
        pattern = re.compile(rf"(?<![\w-]){re.escape(term)}(e?s)?(?![\w-])")
        if not pattern.search(text):
            continue
        text = pattern.sub(" ", text)
        if not any(way in chinese or way.lower() in chinese.lower() for way in (*ways, term)):
            missed[term] = f"has no {' or '.join(ways)} for {term!r}"
    return missed


@cache
def terms() -> dict[str, tuple[str, ...]]:
    """How each English term may be translated, by the glossary and terms.yml; longer ones first."""
    glossary = (BOOK / "glossary.md").read_text(encoding="utf-8")
    found: dict[str, tuple[str, ...]] = {}
    for entry in re.finditer(r"^(\S[^\n]*)\n  \(([^)]*)\)", glossary, re.MULTILINE):
        name, _, short = entry[1].partition(" (")
        for each in filter(None, (name, short.rstrip(")"))):
            found[each.lower()] = (entry[2],)
    more = yaml.safe_load((BOOK / "locale" / "zh_CN" / "terms.yml").read_text(encoding="utf-8"))
    for term, ways in more.items():
        found[term.lower()] = (*found.get(term.lower(), ()), *ways)
    return dict(sorted(found.items(), key=lambda each: -len(each[0])))
