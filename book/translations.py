"""The catalogues of the site in Chinese: made, brought up to date, counted, held to terms.

    python book/translations.py update [DOCUMENT...]     such as course/06_cross_entropy
    python book/translations.py report                   how much is translated
    python book/translations.py check                    terms of the glossary, each in one way

A catalogue is a `.po` file for any editor of such files. `update` keeps what is translated, takes
out what the text no longer has, and fills in what has no words. It needs the tree of `make book`.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po, write_po
from proofreading import faults

from segedu.notebooks.translate import rest, wordless

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "_build" / "book" / "source"
TEMPLATES = ROOT / "_build" / "book" / "pot"
LANGUAGE = "zh_CN"
OF_NO_USE = re.compile(r'"(POT-C|PO-R|Project-Id|Report-M|Language-T)|#, python-')
CATALOGUES = ROOT / "book" / "locale" / LANGUAGE / "LC_MESSAGES"


def templates() -> dict[str, Catalog]:
    """The messages of each page but those of the API reference, which docstrings write.

    Raises:
        SystemExit: If the tree of `make book` is not there.
    """
    if not SOURCE.is_dir():
        raise SystemExit(f"{SOURCE.relative_to(ROOT)} is missing; `make book` lays it out")
    command = ["sphinx-build", "-q", "-b", "gettext", "-c", "book", str(SOURCE), str(TEMPLATES)]
    subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=True)
    found = {}
    for path in sorted(TEMPLATES.rglob("*.pot")):
        name = path.relative_to(TEMPLATES).with_suffix("").as_posix()
        if name.startswith("api/"):
            continue
        with path.open("rb") as file:
            catalogue = read_po(file)
        notebook = SOURCE / f"{name}.ipynb"
        if notebook.is_file():
            for message in rest(nbformat.read(notebook, as_version=4)):
                catalogue.add(message)
        found[name] = catalogue
    return found


def update(names: list[str]) -> None:
    """Bring catalogues up to date, or begin them: those named, or all there are."""
    for name, template in templates().items():
        path = CATALOGUES / f"{name}.po"
        if name not in names and (names or not path.is_file()):
            continue
        old = read(path) if path.is_file() else Catalog(locale=LANGUAGE)
        new = Catalog(
            locale=LANGUAGE,
            header_comment=f"# {name}, Simplified Chinese",
            project="segedu",
            last_translator="The authors of segedu",
            fuzzy=False,
        )
        for message in template:
            if not message.id:
                continue
            known = old.get(message.id)
            text = known.string if known else ""
            if not text and wordless(str(message.id)):
                text = message.id
            comments = known.user_comments if known else []
            new.add(message.id, text, user_comments=comments, flags=[])
        write(path, new)
        print(f"{name}: {len(untranslated(new))} of {len(new)} not translated")


def read(path: Path) -> Catalog:
    """A catalogue from its file."""
    with path.open("rb") as file:
        return read_po(file, locale=LANGUAGE)


def write(path: Path, catalogue: Catalog) -> None:
    """Write a catalogue: the same content gives the same bytes, whatever the day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, catalogue, width=0, include_previous=False)
    text = path.read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if not OF_NO_USE.match(line)]
    path.write_text("\n".join(kept).rstrip() + "\n", encoding="utf-8")


def untranslated(catalogue: Catalog) -> list[Message]:
    """The messages without a translation."""
    return [m for m in catalogue if m.id and not m.string]


def findings(path: Path) -> list[str]:
    """What is to be mended in a catalogue, a line each."""
    name = path.relative_to(CATALOGUES).with_suffix("")
    return [
        f"{name}: {str(m.id)[:70]!r}: {fault}"
        for m in read(path)
        if m.id and m.string
        for fault in faults(str(m.id), str(m.string), m.user_comments)
    ]


def report() -> str:
    """A table: each page, how many of its messages there are, and how many are translated."""
    rows = ["| page | messages | translated |", "|---|---|---|"]
    for name, template in templates().items():
        ids = {m.id for m in template if m.id}
        path = CATALOGUES / f"{name}.po"
        done = {m.id for m in read(path) if m.id and m.string} if path.is_file() else set()
        rows.append(f"| {name} | {len(ids)} | {len(ids & done) / len(ids):.0%} |")
    return "\n".join(rows)


def main(command: str, *names: str) -> None:
    """Do what the command line says.

    Raises:
        SystemExit: If it is none of the commands, or a check finds something.
    """
    if command == "update":
        update(list(names))
    elif command == "report":
        print(report())
    elif command == "check":
        found = [f for path in chosen(names) for f in findings(path)]
        print(*found, f"{len(found)} to mend", sep="\n")
        raise SystemExit(bool(found))
    else:
        raise SystemExit(__doc__)


def chosen(names: Iterable[str]) -> list[Path]:
    """The catalogues named, or all."""
    pages = [path for path in sorted(CATALOGUES.rglob("*.po")) if path.stem != "sphinx"]
    return [CATALOGUES / f"{name}.po" for name in names] or pages


if __name__ == "__main__":
    main(*sys.argv[1:] or ["help"])
