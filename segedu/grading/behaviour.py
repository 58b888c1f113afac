"""What an answer does under the tests: the same as a typical wrong answer does, or not.

Grading keeps what the self-test saw of each mutant in `NAME.selftest.json` beside the results, so
that a report can name the misconceptions that it meets.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.grading.question import Question
from segedu.grading.selftest import Trial

SCHEMA = "segedu.selftest/1"
UNTELLING = ("no-response", "manual")


def behaviours_path(folder: Path, assignment: str) -> Path:
    """Where what the self-test saw lies in a folder of graded work."""
    return folder / f"{assignment}.selftest.json"


def write_behaviours(trials: Iterable[Trial], assignment: str, folder: Path) -> Path:
    """Keep what the self-test saw, whole; returns the path."""
    found = [asdict(trial) for trial in trials]
    path = behaviours_path(folder, assignment)
    text = json.dumps({"schema": SCHEMA, "trials": found}, indent=1, ensure_ascii=False)
    with whole_file(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")
    return path


def read_behaviours(folder: Path, assignment: str) -> list[Trial]:
    """What the self-test saw when the class was graded; nothing if that was not kept.

    Raises:
        InputError: If the file is of another kind.
    """
    path = behaviours_path(folder, assignment)
    if not path.is_file():
        return []
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if given["schema"] != SCHEMA:
            raise KeyError(f"its schema is not {SCHEMA}")  # noqa: TRY301
        return [
            Trial(**{**trial, "questions": tuple(Question(**q) for q in trial["questions"])})
            for trial in given["trials"]
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: cannot be read as a self-test ({error}); remove it and grade again"
        ) from error


def misconceptions(questions: Iterable[Question], trials: Iterable[Trial]) -> list[str]:
    """The mutants that answers behave like, by their sentences.

    A mutant's mark is what differs from the solution in its self-test: of each such question the
    status, the marks, and the line at which the tests fail with what was found there. Answers
    behave like it if they have all of that in the first such question, and in the others as far as
    these were answered. Several mutants may have the same mark; then all are named. Equal behaviour
    under these tests is no proof of the same thought.
    """
    by_name = {trial.name: trial for trial in trials}
    if "solution" not in by_name:
        return []
    sound = {q.name: _mark(q) for q in by_name["solution"].questions}
    given = {q.name: q for q in questions}
    found = []
    for name, trial in by_name.items():
        differing = [q for q in trial.questions if _mark(q) != sound.get(q.name)]
        if name in ("solution", "untouched") or not differing:
            continue
        if all(_behaves(given.get(q.name), q, first=q is differing[0]) for q in differing):
            found.append(name)
    return found


def _behaves(given: Question | None, mutant: Question, *, first: bool) -> bool:
    if given is None or given.status in UNTELLING:
        return not first
    return _mark(given) == _mark(mutant)


def _mark(question: Question) -> tuple[str, float | None, str]:
    return question.status, question.score, question.detail
