"""The Chinese catalogues: faithful, in the glossary's terms; and the site that they give."""

import sys
from pathlib import Path

import pytest
from lxml import html

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "book" / "html"
CHINESE = SITE / "zh_CN"
sys.path.insert(0, str(ROOT / "book"))

import proofreading  # noqa: E402
import translations  # noqa: E402

CHAPTERS = [f"course/{path.stem}" for path in sorted((ROOT / "course").glob("[0-9]*.ipynb"))]
PAGES = ["concepts", "errata", "glossary", "index", "instructors", "questions", "references"]
IN_CHINESE = [*PAGES, "resources", *CHAPTERS]


@pytest.fixture(scope="module")
def chinese_site():
    """The folder of the built Chinese site."""
    if not (CHINESE / "index.html").is_file():
        pytest.skip("the site is not built; `make book` builds it")
    return CHINESE


@pytest.mark.parametrize("path", translations.chosen(()), ids=lambda p: p.stem)
def test_translations_keep_code_formulas_links_numbers_and_terms(path):
    assert translations.findings(path) == []


@pytest.mark.parametrize("path", translations.chosen(()), ids=lambda p: p.stem)
def test_no_catalogue_has_a_gap(path):
    assert [m.id for m in translations.untranslated(translations.read(path))] == []


RIGHT = (
    "The **gradient** is $p - y$ in `F.cross_entropy`, see [chapter 6](06.ipynb), 12 times.",
    "**梯度**是 $p - y$，见 `F.cross_entropy` 和[第 6 章](06.ipynb)，共 12 次。",
)


def test_a_right_translation_has_no_fault():
    assert proofreading.faults(*RIGHT) == []


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("$p - y$", "$y - p$", "lacks the formula $p-y$"),
        ("`F.cross_entropy`", "`cross_entropy`", "lacks the code `F.cross_entropy`"),
        ("06.ipynb", "07.ipynb", "lacks the link 06.ipynb"),
        ("12", "十二", "lacks the number 12"),
        ("梯度", "斜率", "has no 梯度 for 'gradient'"),
        ("，见", ",见", "half-width punctuation"),
        ("共 12", "共12", "needs a space"),
        ("**梯度**是", "**梯度，**是", "shows a * of emphasis"),
    ],
)
def test_a_wrong_translation_is_found(right, wrong, fault):
    english, chinese = RIGHT
    assert right in chinese
    found = proofreading.faults(english, chinese.replace(right, wrong))
    assert any(fault in each for each in found), found


def test_a_term_translated_in_a_second_way_is_found_in_whatever_number():
    assert proofreading.faults("Two masks", "两个掩码") == ["has no 掩膜 for 'mask'"]
    assert proofreading.faults("Two masks", "两个掩膜") == []


def test_a_longer_term_is_not_taken_for_the_shorter_one_in_it():
    assert proofreading.faults("transposed convolution", "转置卷积") == []
    assert proofreading.faults("transposed convolution", "反卷积") != []
    assert proofreading.faults("the learning rate", "学习率") == []


def test_a_comment_exempts_a_word_that_is_no_term():
    english, chinese = "Recall the first line.", "回想第一行。"
    assert proofreading.faults(english, chinese) != []
    assert proofreading.faults(english, chinese, ["not the term: recall"]) == []


def test_a_message_left_in_english_is_found_and_a_citation_is_not():
    english = "This line says something."
    assert proofreading.faults(english, english) == ["is not translated"]
    cited = "A. Author, *A Book on Masks*, Springer, 2022."
    assert proofreading.faults(cited, cited) == []


def test_every_term_of_the_glossary_is_enforced_and_none_has_two_entries():
    terms = proofreading.terms()
    assert terms["cross-entropy"] == ("交叉熵",)
    assert terms["iou"] == ("交并比",)
    assert len(terms) > 70


@pytest.mark.parametrize("page", IN_CHINESE)
def test_what_is_promised_is_wholly_in_chinese(chinese_site, page):
    document = html.parse(chinese_site / f"{page}.html")
    assert document.getroot().get("lang") == "zh-CN"
    assert document.xpath("//*[contains(@class, 'not-translated')]") == []
    left = document.xpath("//article//*[contains(concat(' ', @class, ' '), ' untranslated ')]")
    assert [node.text_content()[:80] for node in left] == []


def test_a_page_in_english_says_so_and_is_marked_as_english(chinese_site):
    pages = list(chinese_site.rglob("*.html"))
    assert len(pages) > len(IN_CHINESE)  # those of the API reference
    for page in pages:
        name = page.relative_to(chinese_site).with_suffix("").as_posix()
        if "_static" in name or name in (*IN_CHINESE, "search", "genindex"):
            continue
        document = html.parse(page)
        (notice,) = document.xpath("//*[contains(@class, 'not-translated')]")
        assert "还没有译成中文" in notice.text_content()
        assert document.xpath("//div[@lang='en']//h1"), name


def test_every_page_leads_to_itself_in_the_other_language(chinese_site):
    for folder, other, language in ((SITE, chinese_site, "zh-CN"), (chinese_site, SITE, "en")):
        for page in folder.rglob("*.html"):
            name = page.relative_to(folder)
            if name.parts[0] in ("_static", "zh_CN"):
                continue
            switches = html.parse(page).xpath("//a[contains(@class, 'language-switch')][@hreflang]")
            assert [s.get("hreflang") for s in switches] == [language], page
            assert (page.parent / switches[0].get("href")).resolve() == other / name


def test_chapters_in_chinese_offer_their_notebook(chinese_site):
    for page in IN_CHINESE:
        if page.startswith("course/"):
            document = html.parse(chinese_site / f"{page}.html")
            (link,) = document.xpath("//a[@download]/@href")
            assert (chinese_site / "course" / link).resolve().is_file()


def test_code_and_outputs_are_those_of_the_english_page(chinese_site):
    for page in IN_CHINESE:
        if page.startswith("course/"):
            ours, theirs = (
                html.parse(folder / f"{page}.html").xpath(
                    "//article//div[contains(@class, 'highlight')]/pre"
                )
                for folder in (chinese_site, SITE)
            )
            assert [x.text_content() for x in ours] == [x.text_content() for x in theirs]


def test_the_report_counts_pages_with_and_without_a_catalogue(monkeypatch):
    from babel.messages.catalog import Catalog

    def template(*messages):
        made = Catalog()
        for message in messages:
            made.add(message)
        return made

    pages = {"references": template("References", "nothing like it"), "api": template("words")}
    monkeypatch.setattr(translations, "templates", lambda: pages)
    assert translations.report().splitlines()[2:] == [
        "| references | 2 | 50% |",
        "| api | 1 | 0% |",
    ]


def test_update_keeps_what_is_translated_and_drops_what_is_gone(monkeypatch, tmp_path):
    from babel.messages.catalog import Catalog

    template = Catalog()
    for message in ("one line", "a new line", "$x$"):
        template.add(message)
    monkeypatch.setattr(translations, "CATALOGUES", tmp_path)
    monkeypatch.setattr(translations, "templates", lambda: {"page": template, "other": template})
    old = Catalog(locale="zh_CN", fuzzy=False)
    old.add("one line", "一行", user_comments=["not the term: line"])
    old.add("gone", "没有了")
    translations.write(tmp_path / "page.po", old)
    translations.update([])
    (path,) = tmp_path.rglob("*.po")
    found = {m.id: m for m in translations.read(path) if m.id}
    assert {name: m.string for name, m in found.items()} == {
        "one line": "一行",
        "a new line": "",
        "$x$": "$x$",
    }
    assert found["one line"].user_comments == ["not the term: line"]
    before = path.read_bytes()
    translations.update([])
    assert path.read_bytes() == before
