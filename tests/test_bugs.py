"""`make bugs` takes long; that its list still fits the code is known in a moment."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "tests" / "bugs.txt").read_text(encoding="utf-8").splitlines()


def test_each_planted_bug_has_its_place_in_the_code():
    bugs = [line.split(" | ") for line in LINES if line and line[0] not in "#@"]
    assert len(bugs) > 300
    gone = [bug for bug in bugs if bug[1] not in (ROOT / bug[0]).read_text(encoding="utf-8")]
    assert gone == []


def test_the_tests_that_a_line_names_are_there():
    for line in LINES:
        if line.startswith("@"):
            file, tests = line.removeprefix("@ ").split(" | ")
            assert all((ROOT / name.split("::")[0]).exists() for name in [file, *tests.split()])
