"""The live figures say everything in Chinese on a Chinese page, in the glossary's terms."""

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book"))
from proofreading import faults  # noqa: E402

FIGURES = ROOT / "book" / "_static" / "figures"
NAMES = ("convolution_step", "four_pixels", "nms", "overlap", "receptive_field", "samples")
UNTRANSLATED = {"2 IoU / (1 + IoU)"}
"""A formula."""


@cache
def node(*arguments):
    """What a script prints in Node, from JSON."""
    if shutil.which("node") is None:
        pytest.skip("needs Node.js; .ci/run runs where it is")
    command = ["node", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def shown(name, language):
    """All texts that a figure ever shows on a page of a language."""
    script = str(Path(__file__).parent / "shown_texts.mjs")
    return node(script, (FIGURES / f"{name}.mjs").as_uri(), language)


def dictionary():
    """Each English template and its Chinese one."""
    script = f"import {{ CHINESE }} from {json.dumps((FIGURES / 'words.mjs').as_uri())};"
    return node(
        "--input-type=module",
        "-e",
        f"{script} console.log(JSON.stringify(Object.entries(CHINESE)))",
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_text_of_a_figure_is_chinese_on_a_chinese_page(name):
    english, chinese = shown(name, "en"), shown(name, "zh-CN")
    assert len(english) > 100
    found = []
    for said, translated in set(zip(english, chinese, strict=True)) - {
        (u, u) for u in UNTRANSLATED
    }:
        assert "undefined" not in said + translated
        if re.search("[A-Za-z]", said) and said == translated:
            found.append(f"{said!r} is not translated")
        found += [f"{said!r}, {translated!r}: {fault}" for fault in faults(said, translated)]
        found += [f"{translated!r} has an English word" for _ in foreign(translated)]
    assert found == []


def foreign(chinese):
    """English words that are no names, symbols or terms kept in Chinese."""
    kept = {"IoU", "Dice", "RoIPool", "RoIAlign", "logit", "log", "p", "y"}
    return set(re.findall(r"[A-Za-z]+", chinese)) - kept


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_english_in_an_english_part_of_a_chinese_page(name):
    assert not re.search("[\u4e00-\u9fff]", "".join(shown(name, "en")))


def test_numbers_of_a_sentence_are_the_same_in_both_languages():
    for name in NAMES:
        for said, translated in zip(shown(name, "en"), shown(name, "zh-CN"), strict=True):
            both = [sorted(re.findall(r"\d+(?:\.\d+)?", text)) for text in (said, translated)]
            assert both[0] == both[1], said


def test_templates_have_the_same_placeholders_in_both_languages():
    for english, chinese in dictionary():
        both = [sorted(re.findall(r"\{(\w+)\}", text)) for text in (english, chinese)]
        assert both[0] == both[1], english


def test_every_entry_of_the_dictionary_is_said_by_a_figure():
    modules = [path for path in FIGURES.glob("*.mjs") if path.name != "words.mjs"]
    source = "\n".join(path.read_text(encoding="utf-8") for path in modules)
    literal = set(re.findall(r'"([^"\n]*)"', source))
    keys = set(re.findall(r"[{,] (\w+): [A-Z]", source))  # names with colours
    assert {english for english, _ in dictionary()} - literal - keys == set()


def test_no_entry_of_the_dictionary_stands_twice():
    source = (FIGURES / "words.mjs").read_text(encoding="utf-8")
    keys = re.findall(r'^  ("[^"]*"):', source, flags=re.MULTILINE)
    assert len(keys) == len(dictionary()) == len(set(keys))
