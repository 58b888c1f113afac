"""Lay out what the website is built from: the pages of book/ beside the executed chapters."""

import argparse
import base64
import io
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import yaml
from PIL import Image

from segedu.notebooks.translate import read_catalogue, relink, translate, translate_rest

ROOT = Path(__file__).resolve().parent.parent
CHINESE = ROOT / "book" / "locale" / "zh_CN" / "LC_MESSAGES"
PAGES = ("*.md", "*.bib", "_toc.yml", "locale")
FIRST = "course/01_first_segmentation.ipynb"
LANDING = ("10_unet", "Four held-out scenes in four columns")
"""The chapter, and the beginning of the words for the figure, that the landing page shows."""

LIVE = {
    "widgets.explore_four_pixels(": "four_pixels",
    "widgets.explore_overlap(": "overlap",
    "widgets.explore_convolution_step(": "convolution_step",
    "widgets.explore_receptive_field(": "receptive_field",
    "widgets.explore_nms(": "nms",
    "widgets.explore_samples(": "samples",
}
"""The module of `_static/figures` that stands on the site for a figure with sliders."""

WIDGET = "application/vnd.jupyter.widget-view+json"

GROUPS = {
    "data": "What a sample is, drawn scenes, and the annotated sets.",
    "losses": "What training makes small.",
    "metrics": "How answers are scored.",
    "models": "The networks, and the parts they are built of.",
    "widgets": "Figures with sliders.",
    "profiling": "Where time and memory go.",
    "notebooks": "Chapters: from source to executed notebook.",
    "grading": "Releasing and grading assignments.",
    "training and use": "Training, prediction, export, and what they share.",
}
"""The pages of the API reference, each with what it is about."""


def project() -> dict[str, Any]:
    """The project's table of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)["project"]
    return table


def repository() -> str:
    """The one address of the repository."""
    address: str = project()["urls"]["Repository"]
    return address


def package_version() -> str:
    """The package's version."""
    version: str = project()["version"]
    return version


def chapters(executed: Path | None) -> list[Path]:
    """The notebooks to show: those of a full run where it is there, else the stored ones."""
    stored = sorted((ROOT / "course").glob("[0-9]*.ipynb"))
    if executed and all((executed / path.name).is_file() for path in stored):
        return [executed / path.name for path in stored]
    return stored


def for_the_site(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without its badge, which the page's buttons replace, and with links that hold.

    Links to files that are no page of the site lead to the repository. A figure with sliders needs
    a kernel: its output, which a full run has, is left out, and below it stands its live figure.
    """
    notebook.metadata.pop("widgets", None)
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\[!\[Open in Colab\]\(.*?\)\]\(.*?\)\s*", "", cell.source)
            cell.source = re.sub(r"\]\((?!https?:|#)([^)#]+)\)", _link, cell.source)
        elif cell.cell_type == "code":
            cell.outputs = [o for o in cell.get("outputs", []) if WIDGET not in o.get("data", {})]
        cells.append(cell)
        cells += [live_figure(name) for call, name in LIVE.items() if call in cell.source]
    notebook.cells = cells
    return notebook


def live_figure(name: str) -> nbformat.NotebookNode:
    """The place of a live figure; it is shown once its script fills it."""
    place = f'<div class="live-figure" data-live-figure="{name}" hidden></div>'
    source = f"```{{raw}} html\n{place}\n```"
    return nbformat.v4.new_markdown_cell(source, id=f"live-{name.replace('_', '-')}")


def _link(match: re.Match[str]) -> str:
    if match[1].endswith(".ipynb"):
        return match[0]
    path = (ROOT / "course" / match[1]).resolve().relative_to(ROOT).as_posix()
    return f"]({repository()}/blob/main/{path})"


def katex(out: Path) -> None:
    """Copy the style and the fonts of mathematics, which npm has fetched."""
    source = ROOT / "book" / "node_modules" / "katex" / "dist"
    (out / "fonts").mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "katex.min.css", out)
    for path in (source / "fonts").glob("*.woff2"):
        shutil.copy(path, out / "fonts")


def api(out: Path) -> None:
    """Write a page for each part of the package, with all its public modules."""
    modules: dict[str, list[str]] = {group: [] for group in GROUPS}
    for path in sorted((ROOT / "segedu").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.stem.startswith("__") or parts[1] == "cli":
            continue
        group = parts[1] if len(parts) > 2 else "training and use"
        modules[group].append(".".join(parts))
    out.mkdir()
    index = ["# API reference", "", "The package by its parts. Shapes stand in the signatures.", ""]
    for group, about in GROUPS.items():
        name = group.replace(" ", "_")
        index.append(f"- [{group}]({name}.md): {about}")
        page = [f"# {group[0].upper()}{group[1:]}", "", about, ""]
        for module in modules[group]:
            page += [f"## {module}", "", "```{eval-rst}", f".. automodule:: {module}", "```", ""]
        (out / f"{name}.md").write_text("\n".join(page), encoding="utf-8")
    (out / "index.md").write_text("\n".join(index) + "\n", encoding="utf-8")


def landing(notebook: nbformat.NotebookNode) -> bytes:
    """The figure of the landing page, as the chapter drew it, in 128 colours.

    Raises:
        SystemExit: If the chapter has no such figure any more.
    """
    for cell in notebook.cells:
        if cell.metadata.get("alt", "").startswith(LANDING[1]):
            drawn = io.BytesIO(base64.b64decode(cell.outputs[0]["data"]["image/png"]))
            light = io.BytesIO()
            Image.open(drawn).convert("RGB").quantize(128).save(light, "png", optimize=True)
            return light.getvalue()
    raise SystemExit(f"book/stage.py: {LANDING[0]} has no figure {LANDING[1]!r}; choose another")


def in_chinese(notebook: nbformat.NotebookNode, stored: Path, downloads: Path) -> None:
    """Translate, in place, what Sphinx leaves, and write the whole notebook to download.

    A chapter without a catalogue stays as it is.
    """
    path = CHINESE / "course" / f"{stored.stem}.po"
    if path.is_file():
        messages = read_catalogue(path)
        translate_rest(notebook, messages)
        whole, _ = translate(nbformat.read(stored, as_version=4), messages, "zh_CN")
        relink(whole, {each.stem for each in (CHINESE / "course").glob("*.po")})
        nbformat.write(whole, downloads / stored.name)


def contents_in_chinese(toc: Path) -> None:
    """Give the table of contents the captions and titles that the landing page has in Chinese."""
    messages = read_catalogue(CHINESE / "index.po")
    table = yaml.safe_load(toc.read_text(encoding="utf-8"))
    for part in table["subtrees"]:
        part["caption"] = messages[part["caption"]]
    for entry in (e for part in table["subtrees"] for e in part["entries"]):
        if "title" in entry:
            line = messages[f"[{entry['title']}]({entry['file']}.ipynb)"]
            entry["title"] = line[1 : line.index("]")]
    toc.write_text(yaml.safe_dump(table, allow_unicode=True, sort_keys=False), encoding="utf-8")


def no_lists_in_titles(catalogues: Path) -> None:
    """Escape the full stop of "1. TITLE": Sphinx parses a translation by itself, as a list."""
    for path in catalogues.rglob("*.po"):
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'^(msgstr "\d+)\. ', r"\1\\\\. ", text, flags=re.MULTILINE)
        path.write_text(text, encoding="utf-8")


def search_words(out: Path) -> None:
    """Write the glossary's Chinese terms, as the search's word splitter takes them."""
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    found = re.findall(r"^  \(([^)]*)\)", text, re.MULTILINE)
    out.write_text("".join(f"{word} 100000\n" for word in found), encoding="utf-8")


def stage(out: Path, executed: Path | None = None, *, chinese: bool = False) -> None:
    """Write the tree for Sphinx, in place of what was there.

    With `chinese` what Sphinx itself does not translate is in Chinese; beside the tree stand the
    translated notebooks to download, in `extra/notebooks`, and the words for the search.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for pattern in PAGES:
        for path in (ROOT / "book").glob(pattern):
            if path.is_dir():
                shutil.copytree(path, out / path.name)
            else:
                shutil.copy(path, out / path.name)
    index = (out / "index.md").read_text(encoding="utf-8")
    owner = repository().removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{owner}/blob/main/{FIRST}"
    index = index.replace("COLAB", colab).replace("REPOSITORY", repository())
    (out / "index.md").write_text(index, encoding="utf-8")
    downloads = out.parent / "extra" / "notebooks"
    if chinese:
        downloads.mkdir(parents=True, exist_ok=True)
        search_words(out.parent / "search_words.txt")
        contents_in_chinese(out / "_toc.yml")
        no_lists_in_titles(out / "locale")
    else:
        katex(out.parent / "static" / "katex")
    api(out / "api")
    (out / "course").mkdir()
    for path in chapters(executed):
        notebook = for_the_site(nbformat.read(path, as_version=4))
        if path.stem == LANDING[0]:
            (out / "landing.png").write_bytes(landing(notebook))
        if chinese:
            in_chinese(notebook, ROOT / "course" / path.name, downloads)
        nbformat.write(notebook, out / "course" / path.name)


def main() -> None:
    """Lay out the tree: `python book/stage.py OUT [--executed DIR] [--chinese]`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--executed", type=Path, default=None, help="copies of a full run")
    parser.add_argument("--chinese", action="store_true", help="for the site in Chinese")
    given = parser.parse_args()
    stage(given.out, given.executed, chinese=given.chinese)


if __name__ == "__main__":
    main()
