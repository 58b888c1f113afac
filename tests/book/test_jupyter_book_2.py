"""The site's sources build with Jupyter Book 2, whose engine is mystmd.

Its default theme is fetched when it is used, so a theme of one file stands in for it: the content
is built as for any theme, and looked at as the theme would get it.
"""

import collections
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
MYST = BOOK / "node_modules" / "mystmd" / "dist" / "myst.cjs"
THEME = "myst: v1\nkind: site\ntitle: Content without a look\n"


@pytest.fixture(scope="module")
def jupyter_book_2():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BOOK)
        import jupyter_book_2

        yield jupyter_book_2


@pytest.fixture(scope="module")
def built(jupyter_book_2, tmp_path_factory):
    """What mystmd said, with the network cut off where that can be done, and its folder."""
    if not (shutil.which("node") and MYST.is_file()):
        pytest.skip("needs Node.js and book/node_modules; `make book` installs them")
    folder = tmp_path_factory.mktemp("jupyter_book_2")
    (folder / "theme").mkdir()
    (folder / "theme" / "template.yml").write_text(THEME, encoding="utf-8")
    jupyter_book_2.stage_for_myst(folder / "source", template=folder / "theme")
    command = ["node", str(MYST), "build", "--site"]
    offline = ["bwrap", "--dev-bind", "/", "/", "--unshare-net", "--"]
    if shutil.which("bwrap") and subprocess.run([*offline, "true"], check=False).returncode == 0:
        command = [*offline, *command]
    run = subprocess.run(
        command, cwd=folder / "source", capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr, folder / "source" / "_build" / "site" / "content"


@pytest.fixture(scope="module")
def content(built):
    """Read a built page, and give all nodes of its tree."""

    def nodes(found):
        if isinstance(found, dict):
            yield found
        for each in found.values() if isinstance(found, dict) else found:
            if isinstance(each, dict | list):
                yield from nodes(each)

    return lambda name: list(nodes(json.loads((built[1] / f"{name}.json").read_text("utf-8"))))


def of_type(nodes, kind):
    return [node for node in nodes if node.get("type") == kind]


def test_the_settings_that_are_kept_are_those_of_the_table_of_contents(jupyter_book_2):
    kept = (BOOK / "myst.yml").read_text(encoding="utf-8")
    assert kept == jupyter_book_2.settings(), "run `python book/jupyter_book_2.py`"


def test_both_books_have_the_same_pages_in_the_same_order_but_for_the_api():
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    sphinx = [toc["root"]] + [each["file"] for part in toc["subtrees"] for each in part["entries"]]
    settings = yaml.safe_load((BOOK / "myst.yml").read_text(encoding="utf-8"))
    root, *parts = settings["project"]["toc"]
    myst = [root["file"]] + [each["file"] for part in parts for each in part["children"]]
    assert [str(Path(name).with_suffix("")) for name in myst] == [
        name for name in sphinx if not name.startswith("api/")
    ]


def test_it_builds_every_page_without_an_error_or_a_warning(built):
    said, pages = built
    assert [line for line in said.splitlines() if "⚠" in line or "⛔" in line] == []
    wanted = len(re.findall(r"file: ", (BOOK / "myst.yml").read_text(encoding="utf-8")))
    assert len(list(pages.glob("*.json"))) == wanted >= 29
    assert f"Built {wanted} pages" in said


def test_a_warning_would_be_met(built, tmp_path):
    (tmp_path / "index.md").write_text("# A\n\n```{grid} 1\n:gutter: 3\n\nb\n```\n", "utf-8")
    (tmp_path / "myst.yml").write_text("version: 1\nsite:\n  template: ./theme\n", "utf-8")
    (tmp_path / "theme").mkdir()
    (tmp_path / "theme" / "template.yml").write_text(THEME, encoding="utf-8")
    command = ["node", str(MYST), "build", "--site"]
    run = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    warned = [line for line in (run.stdout + run.stderr).splitlines() if "⚠" in line]
    assert any('unexpected option "gutter"' in line for line in warned)


def test_every_term_of_the_glossary_is_defined(content):
    source = (BOOK / "glossary.md").read_text(encoding="utf-8")
    terms = len(re.findall(r"^  \(", source, re.MULTILINE))
    nodes = content("glossary")
    assert len(of_type(nodes, "definitionTerm")) == terms > 60
    assert len(of_type(nodes, "definitionDescription")) == terms


def test_every_reference_is_cited(content):
    entries = re.findall(r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text(), re.MULTILINE)
    cited = {node["label"] for node in of_type(content("references"), "cite")}
    assert cited == set(entries)


def test_a_chapter_keeps_its_mathematics_its_outputs_and_its_folded_answers(content):
    kinds = collections.Counter(node.get("type") for node in content("cross-entropy"))
    assert kinds["math"] + kinds["inlineMath"] > 200
    assert kinds["output"] > 50
    assert kinds["details"] >= 3


def test_cards_of_the_landing_page_lead_to_the_first_chapter_and_to_colab(content):
    first, colab, here = (card["url"] for card in of_type(content("index"), "card"))
    assert first == "/first-segmentation"
    assert colab.startswith("https://colab.research.google.com/github/")
    assert here == "#start-here"
