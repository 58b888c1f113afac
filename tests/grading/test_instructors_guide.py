import csv
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segedu.cli import app

ROOT = Path(__file__).parents[2]
STUDENTS = 10
WAITING = {"manual graded", "manual graded s02", "manual graded --sheet"}
ENDS_WITH_3 = ("collect", "grade", *WAITING)
SMALLER = {"demo-class demo": f"demo-class demo --students {STUDENTS}"}
NUMBERS = re.compile(r"\b\d+(?= (?:answers|marks taken|pages|grades|students)\b)")
SECONDS = re.compile(r"(?<= 14) +\d+\.\d\b")


def commands():
    """Each `segedu` command of the guide's console blocks, with the lines that it is said to print."""
    text = (ROOT / "book" / "instructors.md").read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.S | re.M):
        for line in block.splitlines():
            if line.startswith("$ segedu "):
                found.append((line.removeprefix("$ segedu "), []))
            elif line != "...":
                found[-1][1].append(line)
    return found


def plain(line):
    """A line without what depends on the machine, or on how many students there are."""
    return " ".join(NUMBERS.sub("N", SECONDS.sub("", line)).split())


def fill_in(sheet):
    """Give two marks to everybody who has none, as a person would in a spreadsheet."""
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with sheet.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({**row, "marks": row["marks"] or "2"} for row in rows)


def test_the_guide_takes_a_class_from_release_to_feedback(tmp_path, monkeypatch, sandboxed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "course").symlink_to(ROOT / "course")
    steps = [step for step in commands() if step[0] != "doctor"]  # has tests of its own
    assert len(steps) >= 12
    for said, printed in steps:
        command = shlex.split(SMALLER.get(said, said))
        if "--take" in command:
            fill_in(tmp_path / "marks.csv")
        done = CliRunner().invoke(app, command)
        expected = 3 if said.startswith(ENDS_WITH_3) and "--take" not in command else 0
        assert done.exit_code == expected, f"{said}\n{done.output}\n{done.exception}"
        lines = {plain(line) for line in done.stdout.splitlines()}
        missing = [line for line in printed if plain(line) not in lines]
        assert not missing, f"{said}\n{done.output}"
    assert (tmp_path / "report.html").stat().st_size > 5000
    pages = list((tmp_path / "feedback").glob("*/masks_and_metrics.html"))
    assert len(pages) == STUDENTS
    grades = (tmp_path / "moodle.csv").read_text(encoding="utf-8-sig")
    assert "Participant 48214,Kwame Boateng,s02@example.org,Submitted for grading,14.00" in grades


def test_the_guide_names_commands_that_there_are():
    text = (ROOT / "book" / "instructors.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"`?segedu ([a-z-]+)", text)):
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0, name


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("12 answers need a person", "4 answers need a person"),
        ("s01  graded  11  14      1.5", "s01  graded  11  14      31.5"),
    ],
)
def test_lines_are_compared_without_counts_and_times(line, same):
    assert plain(line) == plain(same)
    assert plain("s01  graded  11  14  1.5") != plain("s01  graded  10  14  1.5")
