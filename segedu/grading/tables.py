"""Text in tables that spreadsheets open: it stays text, whatever it begins with.

Source: OWASP, CSV Injection.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from segedu.files import whole_file

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_DIRECTIONS = r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
_HALVES = r"\ud800-\udfff"  # of characters, and bytes in names of files that are no UTF-8
_UNSEEN = re.compile(f"[{_CONTROLS}{_DIRECTIONS}{_HALVES}]")


def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe goes before what begins one.

    Example:
        >>> harmless("=HYPERLINK(1)"), harmless("Ana-Maria")
        ("'=HYPERLINK(1)", 'Ana-Maria')
    """
    if text.lstrip(" ").startswith(FORMULA) or text.startswith("'"):
        return f"'{text}"
    return text


def armed(text: str) -> str:
    """The text that `harmless` was given, from what it gave.

    Example:
        >>> armed("'=1"), armed("it's")
        ('=1', "it's")
    """
    return text[1:] if text.startswith("'") and harmless(text[1:]) == text else text


def seen(text: str) -> str:
    """Text in which nothing is unseen: control and direction characters become a sign.

    Example:
        >>> seen("a" + chr(0x202E) + "b") == "a" + chr(0xFFFD) + "b"
        True
    """
    return _UNSEEN.sub("\ufffd", text)


def writable(text: str) -> str:
    """Text that UTF-8 can write: a half of a character becomes a question mark.

    Example:
        >>> writable("a" + chr(0xD800))
        'a?'
    """
    return text.encode(errors="replace").decode()


def write_table(header: Sequence[str], rows: Iterable[Sequence[str | float]], path: Path) -> None:
    """Write a CSV file whole: RFC 4180, UTF-8, text harmless, numbers as they are."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(header)
    for row in rows:
        table.writerow([harmless(part) if isinstance(part, str) else f"{part:g}" for part in row])
    with whole_file(path) as unfinished:
        unfinished.write_text(text.getvalue(), encoding="utf-8", errors="replace", newline="")
