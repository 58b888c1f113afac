"""The class at a glance, for the instructor: marks, questions, misconceptions, who needs a person.

The page names failing lines of hidden tests, so it is not for students.
"""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segedu.grading.behaviour import misconceptions, read_behaviours
from segedu.grading.export_grades import why_unknown
from segedu.grading.marks import Graded, read_graded
from segedu.grading.pages import page, style_sheet, write_page
from segedu.grading.roster import Person
from segedu.grading.selftest import Trial

BINS = 10
ENDED = ("crash", "timeout", "protocol-error")
FEWEST = 3  # points that a correlation needs


@dataclass(frozen=True)
class QuestionFigures:
    """How a class answered one question.

    Attributes:
        name: Its grade_id.
        most: Marks there are.
        answered: Submissions with marks for it.
        passed: Share of these with all marks; None if there are none.
        mean: Mean share of the marks; None if there are none.
        discrimination: See `discrimination`; None where it is not defined.
        statuses: How often each status was met.
        failures: The commonest failing lines, each with how often it was met.
    """

    name: str
    most: float
    answered: int
    passed: float | None
    mean: float | None
    discrimination: float | None
    statuses: dict[str, int]
    failures: list[tuple[str, int]]


@dataclass(frozen=True)
class Misconception:
    """A mutant's sentence, and who behaves like it."""

    sentence: str
    students: list[str]


@dataclass(frozen=True)
class Bar:
    """A bar of the histogram: from `low` to `high` per cent of the marks."""

    low: int
    high: int
    count: int


@dataclass(frozen=True)
class Note:
    """Something about a student that the instructor should know."""

    student: str
    what: str
    why: str


@dataclass(frozen=True)
class ClassReport:
    """What a report says of one assignment.

    Attributes:
        assignment: Its name.
        works: Everybody's graded work.
        totals: The shares of marks that are known.
        bars: Their histogram.
        questions: In the assignment's order.
        misconceptions: Those met, the commonest first.
        tried: How many mutants were looked for.
        ended: Crashes and time-outs.
        people: Who needs a person, and why.
    """

    assignment: str
    works: list[Graded]
    totals: list[float]
    bars: list[Bar]
    questions: list[QuestionFigures]
    misconceptions: list[Misconception]
    tried: int
    ended: list[Note]
    people: list[Note]


def write_report(folder: Path, out: Path, roster: Mapping[str, Person] | None = None) -> Path:
    """Write the report on a folder of graded work as one HTML page; returns its path.

    Raises:
        InputError: If there is no result, or a file is none of the grader's.
    """
    names = {student: person.name for student, person in (roster or {}).items()}
    text = page(
        "report.html",
        style_sheet("page.css", "report.css"),
        reports=list(class_reports(folder)),
        names=names,
        median=statistics.median,
        mean=statistics.fmean,
    )
    return write_page(text, out)


def class_reports(folder: Path) -> Iterator[ClassReport]:
    """A report on each assignment in a folder of graded work."""
    by_assignment: dict[str, list[Graded]] = {}
    for work in read_graded(folder):
        by_assignment.setdefault(work.result.assignment, []).append(work)
    for name, works in sorted(by_assignment.items()):
        yield class_report(name, works, read_behaviours(folder, name))


def class_report(assignment: str, works: list[Graded], trials: Sequence[Trial]) -> ClassReport:
    """The report on one assignment.

    Args:
        assignment: Its name.
        works: Everybody's graded work.
        trials: What the self-test saw; without it no misconception is named.
    """
    known = [w for w in works if w.total is not None and w.result.most]
    totals = [(w.total or 0.0) / w.result.most for w in known]
    return ClassReport(
        assignment=assignment,
        works=works,
        totals=totals,
        bars=histogram(totals),
        questions=_questions(works),
        misconceptions=_met(works, trials),
        tried=sum(trial.name not in ("solution", "untouched") for trial in trials),
        ended=list(_ended(works)),
        people=list(_people(works)),
    )


def histogram(shares: Sequence[float]) -> list[Bar]:
    """How many shares lie in each tenth; all marks belong to the last.

    Example:
        >>> [bar.count for bar in histogram([0.0, 0.05, 0.55, 1.0])]
        [2, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    """
    places = Counter(min(BINS - 1, int(share * BINS + 1e-9)) for share in shares)
    width = 100 // BINS
    return [Bar(i * width, (i + 1) * width, places[i]) for i in range(BINS)]


def discrimination(item: Sequence[float], rest: Sequence[float]) -> float | None:
    """How well a question tells the class apart: the correlation of its marks with all the others'.

    With marks x of the question and y of the rest of the assignment,
    r = sum (x - mean x)(y - mean y) / sqrt(sum (x - mean x)^2 sum (y - mean y)^2). Where x is only
    ever none or all this is the point-biserial correlation
    (mean y of those who passed - mean y of the others) sqrt(p (1 - p)) / s_y, with p the share that
    passed. The question's own marks are left out of y, since they correlate with themselves.
    None if there are fewer than three, or all of x or of y are alike.

    Source: Crocker and Algina, Introduction to Classical and Modern Test Theory, 1986, chapter 14;
    the corrected item-total correlation.

    Example:
        >>> discrimination([0, 0, 1, 1], [1, 2, 3, 4])
        0.8944271909999159
    """
    if len(item) < FEWEST or len(set(item)) == 1 or len(set(rest)) == 1:
        return None
    return statistics.correlation(item, rest)


def _questions(works: list[Graded]) -> list[QuestionFigures]:
    order = dict.fromkeys(q.name for work in works for q in work.result.questions)
    return [_figures(name, works) for name in order]


def _figures(name: str, works: list[Graded]) -> QuestionFigures:
    found = [(w, q) for w in works for q in w.result.questions if q.name == name]
    scored = [(w, q, s) for w, q in found if (s := w.score_of(q)) is not None]
    shares = [score / q.most if q.most else 0.0 for _, q, score in scored]
    rest = [(work.raw or 0.0) - score for work, _, score in scored]
    failures = Counter(q.detail for _, q in found if q.detail)
    return QuestionFigures(
        name=name,
        most=found[0][1].most,
        answered=len(scored),
        passed=statistics.fmean(share == 1 for share in shares) if shares else None,
        mean=statistics.fmean(shares) if shares else None,
        discrimination=discrimination(shares, rest),
        statuses=dict(Counter(q.status for _, q in found).most_common()),
        failures=failures.most_common(5),
    )


def _met(works: list[Graded], trials: Sequence[Trial]) -> list[Misconception]:
    students: dict[str, list[str]] = {}
    for work in works:
        for sentence in misconceptions(work.result.questions, trials):
            students.setdefault(sentence, []).append(work.result.student)
    met = [Misconception(sentence, who) for sentence, who in students.items()]
    return sorted(met, key=lambda item: (-len(item.students), item.sentence))


def _ended(works: list[Graded]) -> Iterator[Note]:
    for work in works:
        for question in work.result.questions:
            if question.status in ENDED:
                yield Note(work.result.student, question.name, question.message)


def _people(works: list[Graded]) -> Iterator[Note]:
    """Who needs a person: marks to give, something odd, no notebook, or no result at all."""
    for work in works:
        result = work.result
        if work.total is None:
            yield Note(result.student, result.status, why_unknown(work))
        elif result.status == "invalid":
            yield Note(result.student, result.status, result.reason)
