import csv

import pytest

from segedu.grading.tables import armed, harmless, seen, write_table


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "  =", "＝", "＠"])  # noqa: RUF001
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(first):
    assert harmless(f"{first}HYPERLINK(1)") == f"'{first}HYPERLINK(1)"


@pytest.mark.parametrize("text", ["Ana-Maria", "a=b", "", "0.5", "o'clock"])
def test_other_text_stays_as_it_is(text):
    assert harmless(text) == armed(text) == text


@pytest.mark.parametrize("text", ["=1", "'quoted'", "'=1", "-", "plain", ""])
def test_what_was_made_harmless_comes_back(text):
    assert armed(harmless(text)) == text


@pytest.mark.parametrize(
    "code", [0, 7, 27, 0x7F, 0x9B, 0x200E, 0x202E, 0x2066, 0x2068, 0x2028, 0xFEFF]
)
def test_what_cannot_be_seen_becomes_a_sign(code):
    assert seen(f"a{chr(code)}b") == "a\ufffdb"


def test_letters_of_every_script_and_lines_stay():
    text = "Đặng\tليلى\n佐藤\u200d!"
    assert seen(text) == text


def test_a_table_is_quoted_and_its_numbers_are_numbers(tmp_path):
    write_table(["name", "marks"], [['a "b", c\nd', -1.5], ["=1", 2.0]], tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes().startswith(b'name,marks\r\n"a ""b"", c\nd",-1.5\r\n')
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [['a "b", c\nd', "-1.5"], ["'=1", "2"]]
