import re
import statistics
from dataclasses import replace

import pytest
from browser import CHROMIUM, opened
from graded_class import PART, RIGHT, SILENT, TOTAL, TRIALS, WHY, WRONG, write_class, write_work

from segedu.grading.behaviour import behaviours_path
from segedu.grading.manual import give
from segedu.grading.marks import read_graded
from segedu.grading.report import (
    class_report,
    class_reports,
    discrimination,
    histogram,
    write_report,
)
from segedu.grading.roster import Person


@pytest.fixture
def graded(tmp_path):
    return write_class(tmp_path / "graded")


def test_a_question_that_the_good_ones_pass_tells_the_class_apart():
    assert discrimination([0, 0, 1, 1], [1, 2, 3, 4]) == pytest.approx(2 / 5**0.5)
    assert discrimination([1, 1, 0, 0], [1, 2, 3, 4]) == pytest.approx(-2 / 5**0.5)


def test_of_passes_and_failures_it_is_the_point_biserial_correlation():
    item, rest = [0, 1, 1, 0, 1], [3.0, 5.0, 4.0, 1.0, 2.0]
    passed = [y for x, y in zip(item, rest, strict=True) if x]
    failed = [y for x, y in zip(item, rest, strict=True) if not x]
    p = len(passed) / len(item)
    gap = statistics.fmean(passed) - statistics.fmean(failed)
    by_hand = gap * (p * (1 - p)) ** 0.5 / statistics.pstdev(rest)
    assert discrimination(item, rest) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("item", "rest"), [([], []), ([0, 1], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([0, 1, 1], [2, 2, 2])]
)
def test_where_nothing_varies_it_is_undefined(item, rest):
    assert discrimination(item, rest) is None


def test_a_histogram_has_ten_bars_and_all_marks_are_in_the_last():
    bars = histogram([0.0, 0.1, 0.0999, 0.3, 0.7, 1.0])
    assert [bar.count for bar in bars] == [2, 1, 0, 1, 0, 0, 0, 1, 0, 1]
    assert [(bar.low, bar.high) for bar in (bars[0], bars[-1])] == [(0, 10), (90, 100)]


def test_the_figures_of_a_class_are_those_by_hand(graded):
    (report,) = class_reports(graded)
    assert sorted(report.totals) == [3 / 6, 3.5 / 6]  # what nobody knows yet is left out
    double, total, why = report.questions
    assert (double.answered, double.passed, double.mean) == (3, 2 / 3, 2 / 3)
    assert double.statuses == {"pass": 2, "fail": 1}
    assert double.failures == [("line 1: [1, 4]", 1)]
    assert (total.passed, total.mean) == (2 / 3, (1 + 2 / 3 + 1) / 3)
    # rest of ana 3, of bo 3, of cem 2: those who passed have 3 and 2, the other 3
    assert double.discrimination == pytest.approx(statistics.correlation([1, 0, 1], [3, 3, 2]))
    assert (why.answered, why.passed) == (2, 0.0)
    assert [(m.sentence, m.students) for m in report.misconceptions] == [
        ("Doubling was taken for squaring.", ["bo"])
    ]
    assert [(n.student, n.what, n.why) for n in report.people] == [
        ("ana", "needs-manual", "why: a person marks it"),
        ("dee", "infrastructure", "no sandbox"),
    ]


def test_a_persons_marks_count(graded):
    give(graded, "ana", "why", 1)
    (report,) = class_reports(graded)
    assert 1.0 in report.totals
    assert report.questions[2].passed == pytest.approx(1 / 3)
    assert [n.student for n in report.people] == ["dee"]


def test_what_ended_and_what_is_invalid_is_listed(graded):
    crash = replace(RIGHT, status="crash", score=0.0, message="the code ended its own process")
    write_work(graded, "eve", [crash, TOTAL, SILENT])
    write_work(graded, "flo", [], status="invalid", score=0.0, reason="the file is empty")
    (report,) = class_reports(graded)
    assert [(n.student, n.what) for n in report.ended] == [("eve", "double_test")]
    assert ("flo", "the file is empty") in [(n.student, n.why) for n in report.people]


def test_commoner_misconceptions_come_first(graded):
    write_work(graded, "eve", [WRONG, TOTAL, SILENT])
    write_work(graded, "flo", [RIGHT, replace(PART, score=1.0), SILENT])
    other = replace(
        TRIALS[2], name="A rarer one.", questions=(RIGHT, replace(PART, score=1.0), WHY)
    )
    report = class_report("tiny", list(read_graded(graded)), [*TRIALS[:2], other, TRIALS[2]])
    assert [len(m.students) for m in report.misconceptions] == [2, 1]
    assert report.tried == 2


def test_a_question_that_nobody_has_marks_for_has_no_rate(tmp_path):
    write_work(tmp_path, "ana", [WHY])
    (report,) = class_reports(tmp_path)
    figures = report.questions[0]
    assert (figures.passed, figures.mean, figures.discrimination) == (None, None, None)
    text = write_report(tmp_path, tmp_path / "report.html").read_text()
    assert "Nobody's marks are known yet." in text.replace("&#39;", "'")
    assert "graded before self-tests were kept" in text


def test_the_page_says_all_of_it_and_escapes_it(graded, tmp_path):
    write_work(graded, "eve", [replace(WRONG, detail="<script>x</script>"), TOTAL, SILENT])
    roster = {"bo": Person("bo", "<b>Bo</b>")}
    text = write_report(graded, tmp_path / "report.html", roster).read_text(encoding="utf-8")
    assert "&lt;b&gt;Bo&lt;/b&gt;" in text
    assert "&lt;script&gt;x&lt;/script&gt;" in text
    assert "<script" not in text
    assert "RAISED-SECRET" not in text
    assert 'role="img" aria-label="Histogram of the marks: 0 to 10 per cent, 0;' in text
    assert text.count("<h1>") == 1
    assert not re.findall(r"<th(?![^>]*scope)[ >]", text)
    assert "http" not in text.replace("http-equiv", "")


def test_classes_with_and_without_misconceptions_say_so(graded, tmp_path):
    page = tmp_path / "report.html"
    assert "Doubling was taken for squaring." in write_report(graded, page).read_text()
    write_work(graded, "bo", [RIGHT, TOTAL, SILENT])
    assert (
        "behaves like any of the 1 typical wrong answers" in write_report(graded, page).read_text()
    )
    assert behaviours_path(graded, "tiny").exists()
    for student in ("ana", "dee"):
        (graded / student / "tiny.result.json").unlink()
    text = write_report(graded, page).read_text()
    assert "<p>Nobody.</p>" in text
    assert "No failing line was kept." in text


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; .ci/run installs it")
def test_a_browser_takes_the_page_without_complaint(graded, tmp_path):
    document, console = opened(write_report(graded, tmp_path / "report.html"))
    assert console == []
    assert "<title>Report: tiny</title>" in document
