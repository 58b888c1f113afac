"""Chapters in another language: the same notebook, with its text replaced."""

import re
import shutil
from pathlib import Path

import pytest

from segedu.errors import InputError
from segedu.notebooks.document import node, notebook_text, read_notebook
from segedu.notebooks.translate import (
    build_translated,
    read_catalogue,
    relink,
    rest,
    translate,
    wordless,
)

ROOT = Path(__file__).resolve().parents[2]
COURSE = ROOT / "course"
CATALOGUES = ROOT / "book" / "locale" / "zh_CN" / "LC_MESSAGES" / "course"
CHAPTERS = sorted(path.stem for path in CATALOGUES.glob("*.po"))

TEXT = r"""# A title

First line
of *one* paragraph, with $a|b$ in it.

- one item that goes
  on here
- another

| name | value |
|---|---|
| name | 12 |

$$x = 1 \text{ if it is so}$$

```python
name
```

<details><summary>Answer</summary>

name

</details>"""
SAID = {
    "A title": "标题",
    "First line of *one* paragraph, with $a|b$ in it.": "一段，含 $a|b$。",
    "one item that goes on here": "一项",
    "another": "另一项",
    "name": "名称",
    "value": "值",
    r"x = 1 \text{ if it is so}": r"x = 1 \text{（若如此）}",
    "Answer": "答案",
    "A red square on grey.": "灰底上的红色方块。",
}
DONE = r"""# 标题

一段，含 $a|b$。

- 一项
- 另一项

| 名称 | 值 |
|---|---|
| 名称 | 12 |

$$x = 1 \text{（若如此）}$$

```python
name
```

<details><summary>答案</summary>

名称

</details>"""


def notebook(text=TEXT):
    image = {"alt": "A red square on grey."}
    output = node(
        output_type="display_data", data={"image/png": "iVBORw0="}, metadata={"image/png": image}
    )
    code = node(
        cell_type="code",
        source="name = 'name'",
        id="b",
        execution_count=1,
        metadata={"alt": image["alt"], "mystnb": {"image": dict(image)}},
        outputs=[output],
    )
    cells = [node(cell_type="markdown", source=text, id="a", metadata={}), code]
    return node(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)


def test_all_text_is_replaced_and_nothing_else():
    translated, missing = translate(notebook(), SAID, "zh_CN")
    assert missing == []
    assert translated.cells[0].source == DONE
    code = translated.cells[1]
    assert code.source == "name = 'name'"
    assert code.metadata.alt == "灰底上的红色方块。"
    assert code.metadata.mystnb.image.alt == code.metadata.alt
    assert code.outputs[0].metadata["image/png"].alt == code.metadata.alt
    assert code.outputs[0].data == {"image/png": "iVBORw0="}


def test_the_notebook_given_stays_as_it_is():
    given = notebook()
    translate(given, SAID, "zh_CN")
    assert given == notebook()


@pytest.mark.parametrize("gone", SAID)
def test_what_has_no_translation_stays_in_english_is_counted_and_said(gone):
    messages = {english: said for english, said in SAID.items() if english != gone}
    translated, missing = translate(notebook(), messages, "zh_CN")
    assert set(missing) == {gone}
    assert f"本章尚有 {len(missing)} 处" in translated.cells[0].source
    left = notebook_text(translated)
    assert all(word in left for word in re.findall(r"[A-Za-z]{2,}", gone))


def test_rest_is_what_sphinx_leaves():
    assert set(rest(notebook())) == {
        "Answer",
        r"x = 1 \text{ if it is so}",
        "A red square on grey.",
    }


@pytest.mark.parametrize(
    ("message", "without"),
    [
        ("12", True),
        ("A", True),
        ("`F.cross_entropy(logits)`", True),
        ("$e^{z_0}$ ", True),
        ("[9](09_fcn.ipynb), [14](14_transfer.ipynb)", True),
        (r"$$\mathrm{IoU} = \frac{|T|}{|P|}$$", True),
        (r"$$x \text{ otherwise}$$", False),
        (r"\mathrm{IoU} = \frac{|T|}{|P|}", True),
        (r"\frac{1}{2} \text{ otherwise}", False),
        ("$e^{z_0}$ (ground)", False),
        ("[map](concepts.md)", False),
        ("IoU", False),
    ],
)
def test_numbers_code_and_formulas_have_no_words(message, without):
    assert wordless(message) is without


def test_links_lead_to_translated_neighbours_or_up():
    text = "[a](06_x.ipynb#part) [b](07_y.ipynb) [c](../README.md) [d](https://e.org/f) [g](#h)"
    linked = notebook(text)
    relink(linked, ["06_x"])
    assert linked.cells[0].source == (
        "[a](06_x.ipynb#part) [b](../07_y.ipynb) [c](../../README.md) [d](https://e.org/f) [g](#h)"
    )


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_translated_chapter_is_whole_and_its_code_is_identical(chapter):
    stored = read_notebook(COURSE / f"{chapter}.ipynb")
    messages = read_catalogue(CATALOGUES / f"{chapter}.po")
    translated, missing = translate(stored, messages, "zh_CN")
    assert missing == []
    assert len(translated.cells) == len(stored.cells)
    for new, old in zip(translated.cells, stored.cells, strict=True):
        assert (new.cell_type, new.id) == (old.cell_type, old.id)
        if old.cell_type == "code":
            assert new.source == old.source
            assert [o.get("data", o.get("text")) for o in new.outputs] == [
                o.get("data", o.get("text")) for o in old.outputs
            ]
        elif not wordless(old.source) and "![" not in old.source:
            assert re.search("[\u4e00-\u9fff]", new.source), old.source


def test_every_chapter_is_there_in_chinese():
    assert [path.stem for path in sorted(COURSE.glob("[0-9]*.ipynb"))] == CHAPTERS


def test_build_writes_the_translated_notebooks_beside_the_others(tmp_path):
    (tmp_path / f"{CHAPTERS[0]}.ipynb").write_bytes((COURSE / f"{CHAPTERS[0]}.ipynb").read_bytes())
    catalogues = tmp_path / "catalogues"
    catalogues.mkdir()
    shutil.copy(CATALOGUES / f"{CHAPTERS[0]}.po", catalogues)
    (tmp_path / "02_x.ipynb").write_text("not read", encoding="utf-8")
    ((path, missing),) = build_translated(tmp_path, catalogues, "zh_CN")
    assert path == tmp_path / "zh_CN" / f"{CHAPTERS[0]}.ipynb"
    assert missing == 0
    written = read_notebook(path)
    assert written.metadata.language == "zh_CN"
    assert "](../02_masks_and_data.ipynb" in notebook_text(written)


def test_a_chapter_without_a_catalogue_is_refused_and_nothing_written(tmp_path):
    (tmp_path / "02_x.ipynb").write_bytes((COURSE / "02_masks_and_data.ipynb").read_bytes())
    with pytest.raises(InputError, match=r"02_x\.po is missing.*not translated"):
        list(build_translated(tmp_path, CATALOGUES, "zh_CN", ["2"]))
    assert list(tmp_path.rglob("*.ipynb")) == [tmp_path / "02_x.ipynb"]


def test_a_language_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(InputError, match="no language 'fr'; there is zh_CN"):
        list(build_translated(COURSE, tmp_path / "fr", "fr"))


def test_links_that_the_site_leads_to_the_repository_are_those_of_the_notebook(tmp_path):
    path = tmp_path / "x.po"
    blob = "https://github.com/segedu/segedu/blob/main"
    path.write_text(
        'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n\n'
        f'msgid "[a]({blob}/course/x.sh) [b]({blob}/README.md)"\n'
        f'msgstr "[甲]({blob}/course/x.sh)、[乙]({blob}/README.md)"\n',
        encoding="utf-8",
    )
    messages = read_catalogue(path)
    assert messages["[a](x.sh) [b](../README.md)"] == "[甲](x.sh)、[乙](../README.md)"
    assert f"[a]({blob}/course/x.sh) [b]({blob}/README.md)" in messages


def test_fuzzy_and_empty_messages_are_no_translations(tmp_path):
    path = tmp_path / "x.po"
    path.write_text(
        'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n\n'
        'msgid "one"\nmsgstr "一"\n\nmsgid "two"\nmsgstr ""\n\n'
        '#, fuzzy\nmsgid "three"\nmsgstr "三"\n',
        encoding="utf-8",
    )
    assert read_catalogue(path) == {"one": "一"}
