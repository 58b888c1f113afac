import json

import pytest
from typer.testing import CliRunner

from segedu.cli import app
from segedu.cli import grading as module
from segedu.grading import doctor, grade
from segedu.grading.doctor import Finding
from segedu.grading.results import Result
from segedu.grading.selftest import Trial


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_an_assignment_is_released_tested_and_graded(source, hand_in, tmp_path, sandboxed):
    done = call("release", source, "-o", tmp_path / "release", "--key", tmp_path / "key")
    assert done.exit_code == 0, done.output
    assert "HIDDEN" not in (tmp_path / "release/tiny/tiny.ipynb").read_text()
    done = call("selftest", source)
    assert done.exit_code == 0
    assert "✓     5 of 5  solution" in done.output
    hand_in("ana")
    done = call(
        "grade",
        tmp_path / "key/tiny",
        "--submissions",
        tmp_path / "submissions",
        "-o",
        tmp_path / "graded",
    )
    assert done.exit_code == module.NEEDS_PERSON
    assert "ana      needs-manual      5   6" in done.output
    assert json.loads((tmp_path / "graded/ana/tiny.result.json").read_text())["score"] == 5


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("graded", 0),
        ("needs-manual", 3),
        ("needs-review", 3),
        ("invalid", 3),
        ("infrastructure", 4),
    ],
)
def test_the_exit_status_says_what_is_left_to_do(monkeypatch, secret, tmp_path, status, code):
    (tmp_path / "key.json").write_text(json.dumps(secret))
    (tmp_path / "in").mkdir()
    result = Result("ana", "tiny", status, None, 6)
    monkeypatch.setattr(grade, "grade_class", lambda *_, **__: iter([result]))
    done = call("grade", tmp_path / "key.json", "--submissions", tmp_path / "in")
    assert done.exit_code == code


def test_a_self_test_that_fails_says_so(monkeypatch, source, sandboxed):
    from segedu.grading import selftest

    monkeypatch.setattr(
        selftest, "selftest", lambda _: [Trial("solution", 1, 2, "expected all marks")]
    )
    done = call("selftest", source)
    assert done.exit_code == 1
    assert "expected all marks" in done.output


def test_what_is_no_assignment_is_one_line(tmp_path):
    done = call("release", tmp_path)
    assert done.exit_code == 1
    assert done.output.startswith("segedu:")
    assert done.output.count("\n") == 1


@pytest.mark.parametrize("holds", [True, False])
def test_the_doctor_says_what_is_enforced_and_what_to_do(monkeypatch, holds):
    findings = [Finding("a sandbox starts", holds, "" if holds else "open the namespaces")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    done = call("doctor")
    assert done.exit_code == (0 if holds else 1)
    assert "torch" in done.output
    assert ("✓" if holds else "✗") + " sandbox: a sandbox starts" in done.output
    assert ("open the namespaces" in done.output) is not holds
