"""Jupyter Book 2: its settings, and the site's sources as its engine, mystmd, reads them.

The pages are those of the site, but for the API reference, which Sphinx makes from docstrings, and
the live figures, which need the site's scripts; the still figures above them stand. What only
Sphinx's extensions know is said in mystmd's way: see `page`.
"""

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import yaml
from stage import ROOT, chapters, project, repository, stage

BOOK = ROOT / "book"
SETTINGS = BOOK / "myst.yml"
LEFT_OUT = "api/"
HEAD = "# Written by `python book/jupyter_book_2.py` from _toc.yml and pyproject.toml.\n"


def page(text: str, keys: list[str]) -> str:
    """The page without options that only Sphinx knows, its glossary and references in MyST's form.

    `keys` are those of all references: mystmd lists what is cited, so the page of references cites
    all of them.
    """
    text = re.sub(r"^:link: (.*)\n:link-type: (\w+)\n", _link, text, flags=re.MULTILINE)
    text = re.sub(r"^:(gutter|class-container):.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^```\{glossary\}.*?^```$", _definitions, text, flags=re.MULTILINE | re.DOTALL)
    cited = "\n".join(f"- {{cite:t}}`{key}`" for key in keys)
    return text.replace("```{bibliography}\n:all:\n```", f"{cited}\n\n```{{bibliography}}\n```")


def _link(match: re.Match[str]) -> str:
    """The link of a card."""
    address, kind = match.groups()
    if kind == "ref":
        address = f"#{address}"
    elif kind == "doc":
        address = f"{address}{_ending(address)}"
    return f":link: {address}\n"


def _definitions(match: re.Match[str]) -> str:
    """Indented explanations, as Sphinx has them, become those of a definition list."""
    return re.sub(r"^  (?=\S)", ": ", match[0], flags=re.MULTILINE)


def _ending(name: str) -> str:
    return ".ipynb" if name.startswith("course/") else ".md"


def contents(toc: dict[str, Any]) -> list[dict[str, Any]]:
    """The table of contents of _toc.yml in mystmd's form."""
    parts: list[dict[str, Any]] = [{"file": toc["root"] + _ending(toc["root"])}]
    for part in toc["subtrees"]:
        entries = [each for each in part["entries"] if not each["file"].startswith(LEFT_OUT)]
        files = [{**each, "file": each["file"] + _ending(each["file"])} for each in entries]
        parts.append({"title": part["caption"], "children": files})
    return parts


def settings() -> str:
    """The whole text of myst.yml."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    told = {
        "version": 1,
        "project": {
            "title": "segedu: learn image segmentation",
            "description": project()["description"],
            "github": repository(),
            "license": {"content": "CC-BY-4.0", "code": "MIT"},
            "bibliography": ["references.bib"],
            "toc": contents(toc),
        },
        "site": {"template": "book-theme", "options": {"logo": "logo.svg"}},
    }
    return HEAD + yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=100)


def stage_for_myst(out: Path, executed: Path | None = None, template: Path | None = None) -> None:
    """Write the tree for mystmd, in place of what was there; `template` replaces the theme."""
    stage(out, executed)
    shutil.rmtree(out / "api")
    shutil.rmtree(out / "locale", ignore_errors=True)
    (out / "_toc.yml").unlink()
    keys = re.findall(r"^@\w+\{([^,]+),", (out / "references.bib").read_text("utf-8"), re.MULTILINE)
    for path in out.glob("*.md"):
        path.write_text(page(path.read_text(encoding="utf-8"), keys), encoding="utf-8")
    for path in chapters(out / "course"):
        notebook = nbformat.read(path, as_version=4)
        notebook.cells = [c for c in notebook.cells if not c.get("id", "").startswith("live-")]
        nbformat.write(notebook, path)
    shutil.copy(BOOK / "_static" / "logo.svg", out)
    text = settings()
    if template:
        text = text.replace("template: book-theme", f"template: {template}")
    (out / "myst.yml").write_text(text, encoding="utf-8")


def main() -> None:
    """Write book/myst.yml, or the tree for mystmd: `python book/jupyter_book_2.py [OUT]`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path, nargs="?", help="the folder of the tree")
    parser.add_argument("--executed", type=Path, default=None, help="copies of a full run")
    parser.add_argument("--template", type=Path, default=None, help="a theme's folder")
    given = parser.parse_args()
    if given.out:
        stage_for_myst(given.out, given.executed, given.template)
    else:
        SETTINGS.write_text(settings(), encoding="utf-8")


if __name__ == "__main__":
    main()
