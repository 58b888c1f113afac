import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import nbformat
import psutil
import pytest
from tiny_assignment import FULL, outcome

from segedu.errors import InputError
from segedu.grading import graded_copy, pool
from segedu.grading import job as module
from segedu.grading.assignment import read_assignment
from segedu.grading.bridge import SandboxFailed
from segedu.grading.export_grades import export_csv
from segedu.grading.feedback import write_feedback
from segedu.grading.grade import count_students, find_submissions, format_results, grade_class
from segedu.grading.job import Job, failed, grade_one, grade_safely
from segedu.grading.keys import answered, read_key
from segedu.grading.manual import take_sheet, write_sheet
from segedu.grading.marks import read_graded
from segedu.grading.question import Question
from segedu.grading.release import write_release
from segedu.grading.report import write_report
from segedu.grading.results import Result, read_result, read_results, result_path, write_result
from segedu.grading.verdict import Verdict


@pytest.fixture
def keys(source, tmp_path):
    write_release(read_assignment(source), tmp_path / "release", tmp_path / "key")
    return tmp_path / "key" / "tiny"


@pytest.fixture
def graded(keys, hand_in, tmp_path, sandboxed):
    """Grade one student's submission."""

    def grade(student="ana", answers=None, arrived=None):
        path = hand_in(student, answers)
        return grade_one(Job(student, path, keys, tmp_path / "graded", arrived))

    return grade


def test_a_submission_gets_a_result_and_an_executed_copy(graded, tmp_path):
    result = graded()
    assert outcome(result) == FULL
    assert (result.status, result.score, result.most) == ("needs-manual", 5, 6)
    assert result.sandbox["sandbox"] == "bubblewrap"
    assert result.versions["numpy"]
    assert result == read_result(tmp_path / "graded/ana/tiny.result.json")
    copy = nbformat.read(tmp_path / "graded/ana/tiny.ipynb", 4)
    nbformat.validate(copy)
    assert copy.cells[0].source.startswith("# tiny: 5 of 6")
    assert "| `double_test` | pass | 2 | 2 |" in copy.cells[0].source
    text = json.dumps(copy)
    assert "papermill" not in text
    assert "-17.25" not in text  # hidden tests are not in it
    assert [
        o.data["text/plain"]
        for c in copy.cells
        for o in c.get("outputs", [])
        if o.output_type == "execute_result"
    ] == ["1"]


def test_a_failing_submission_has_its_errors_in_the_copy_and_no_cell_of_papermills(
    graded, tmp_path
):
    graded(answers={"double": "def double(x): return x"})
    copy = nbformat.read(tmp_path / "graded/ana/tiny.ipynb", 4)
    errors = [o.ename for c in copy.cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert errors == ["AssertionError"]
    assert len(copy.cells) == 8


def test_what_is_no_notebook_is_invalid_with_nought(keys, tmp_path, sandboxed):
    path = tmp_path / "submissions" / "bob" / "tiny.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    result = grade_one(Job("bob", path, keys, tmp_path / "graded"))
    assert (result.status, result.score) == ("invalid", 0)
    assert "no JSON" in result.reason


def test_without_a_sandbox_nobody_gets_nought(graded, monkeypatch):
    def none(*_, **__):
        raise SandboxFailed("there is none")

    monkeypatch.setattr(module, "Bridge", none)
    result = graded()
    assert (result.status, result.score, result.reason) == ("infrastructure", None, "there is none")


@pytest.mark.parametrize(
    ("hours", "days", "score"), [(-1, 0, 5), (0, 0, 5), (1, 1, 4.4), (25, 2, 3.8), (24 * 99, 99, 0)]
)
def test_lateness_costs_a_share_of_the_marks_for_each_day_begun(graded, hours, days, score):
    due = datetime(2026, 12, 1, 12, tzinfo=UTC)
    blank = Result("ana", "tiny", "graded", 5, 6)
    secret = {"due": due.isoformat(), "late": 0.1}
    result = module._late(blank, secret, due + timedelta(hours=hours))
    assert result.late_days == days
    assert result.score == pytest.approx(score)
    assert module._late(blank, {**secret, "due": None}, due) == blank
    assert module._late(blank, secret, None) == blank


def test_a_protocol_error_wants_a_look():
    verdict = Verdict([Question("q", "protocol-error", 0.0, 1)])
    blank = Result("ana", "tiny", "infrastructure", None, 6)
    from segedu.grading.submission import Submission

    assert module._judged(blank, Submission([]), verdict).status == "needs-review"
    assert module._judged(blank, Submission([]), Verdict()).status == "graded"


def test_a_class_is_graded_at_once_and_not_again(keys, hand_in, tmp_path, sandboxed):
    for student in ("ana", "bo", "cem"):
        hand_in(student, {"double": "import os; os._exit(0)"} if student == "bo" else None)
    results = list(grade_class(keys, tmp_path / "submissions", tmp_path / "graded", jobs=2))
    scores = {r.student: r.score for r in results}
    assert scores == {"ana": 5, "bo": 3, "cem": 5}
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "graded").glob("*/*.json")}
    again = list(grade_class(keys, tmp_path / "submissions", tmp_path / "graded", jobs=2))
    assert {r.student: r.score for r in again} == scores
    assert {p: p.stat().st_mtime_ns for p in before} == before
    hand_in("ana", {"total": "x"})
    result_path(tmp_path / "graded", "cem", "tiny").write_text("{")
    third = {
        r.student: r.score for r in grade_class(keys, tmp_path / "submissions", tmp_path / "graded")
    }
    assert third == {"ana": 2, "bo": 3, "cem": 5}


def test_grading_that_was_killed_goes_on_without_grading_anything_twice(
    keys, hand_in, tmp_path, sandboxed
):
    for number in range(4):
        hand_in(f"s{number}")
    code = f"""
        from pathlib import Path
        from segedu.grading.grade import grade_class
        if __name__ == "__main__":
            for _ in grade_class(Path({str(keys)!r}), Path({str(tmp_path / "submissions")!r}), Path({str(tmp_path / "graded")!r})):
                print("one", flush=True)
        """
    script = tmp_path / "grading.py"
    script.write_text(textwrap.dedent(code))
    victim = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, start_new_session=True
    )
    assert victim.stdout.readline() == b"one\n"
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    done = {p: p.stat().st_mtime_ns for p in (tmp_path / "graded").glob("*/*.result.json")}
    assert 1 <= len(done) < 4
    results = list(grade_class(keys, tmp_path / "submissions", tmp_path / "graded", jobs=2))
    assert [r.score for r in results] == [5] * 4
    assert all(p.stat().st_mtime_ns == t for p, t in done.items())
    assert not list((tmp_path / "graded").rglob("*unfinished*"))


def test_a_process_of_the_grader_that_dies_costs_its_submission_only(
    keys, hand_in, tmp_path, monkeypatch
):
    for student in ("ana", "bo", "cem"):
        hand_in(student)
    monkeypatch.setattr(pool, "grade_in_time", dies_over_bo)
    jobs = [
        Job(s, p, keys, tmp_path / "graded")
        for s, p in find_submissions(tmp_path / "submissions", "tiny")
    ]
    results = {r.student: r for r in pool.in_processes(jobs, 1)}
    assert results["ana"].status == results["cem"].status == "graded"
    assert results["bo"].status == "infrastructure"
    assert results["bo"].score is None
    assert read_result(result_path(tmp_path / "graded", "bo", "tiny")).reason.startswith(
        "the process"
    )


HANGS = """
import sys, time
from pathlib import Path
from segedu.grading import pool
from segedu.grading.job import Job
pool.PATIENCE = 0.5 - 4 * 20  # the limits allow 20 s
pool.grade_safely = lambda job: time.sleep(60)
pool.grade_in_time(Job("ana", Path("none"), Path(sys.argv[1]), Path("none")))
"""


def test_a_process_of_the_grader_that_hangs_ends(keys):
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", HANGS, str(keys)], check=False, timeout=50)
    assert ended.returncode == 1
    assert time.monotonic() - begun < 45


def dies_over_bo(job):
    if job.student == "bo":
        time.sleep(0.5)
        os._exit(1)
    return Result(job.student, "tiny", "graded", 1, 6)


def test_nothing_to_grade_and_a_faulty_assignment_are_refused(
    keys, source, hand_in, tmp_path, sandboxed
):
    (tmp_path / "submissions").mkdir()
    with pytest.raises(InputError, match="has no submission"):
        list(grade_class(keys, tmp_path / "submissions", tmp_path / "graded"))
    hand_in("ana")
    text = (source / "tiny.py").read_text().replace("-34.5", "-34.0")
    (source / "tiny.py").write_text(text)
    write_release(read_assignment(source), tmp_path / "release", tmp_path / "key")
    with pytest.raises(
        InputError, match=r"the self-test fails.*solution: expected all marks.*double_test"
    ):
        list(grade_class(keys, tmp_path / "submissions", tmp_path / "graded"))
    assert not (tmp_path / "graded").exists()


def test_submissions_are_found_by_student(tmp_path):
    for name in (
        "ana/tiny.ipynb",
        "bo/other name.ipynb",
        "cem/a.ipynb",
        "cem/b.ipynb",
        ".hidden/tiny.ipynb",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "ana")
    (tmp_path / "file.txt").write_text("")
    found = {student: path.name for student, path in find_submissions(tmp_path, "tiny")}
    assert found == {"ana": "tiny.ipynb", "bo": "other name.ipynb", "cem": "tiny.ipynb"}


def test_a_summary_shows_what_a_student_wrote_as_text_only():
    question = Question("q", "fail", 0.0, 2, "<script>alert(1)</script> | `x`\n# y")
    result = Result(
        "<b>", "tiny", "graded", 1.5, 2, [question], repairs=["r"], late_days=2, penalty=0.5
    )
    text = graded_copy.summary(result)
    assert "| `q` | fail | 0 | 2 | `<script>alert(1)</script> / 'x' # y` |" in text
    assert "Student `<b>`" in text
    assert "- `2 days late: 0.5 marks less`" in text
    assert "secret" not in graded_copy.summary(replace(result, raised=["cell 1 E: secret"]))
    none = graded_copy.summary(replace(result, score=None, penalty=0.0))
    assert none.startswith("# tiny: ? of 2")


def test_results_are_read_back_and_bad_ones_are_named(tmp_path):
    result = Result("ana", "tiny", "graded", 1.0, 2, [Question("q", "pass", 1.0, 1)])
    path = write_result(result, tmp_path)
    assert list(read_results(tmp_path)) == [result]
    for text in ("{", "[]", "{}", '{"schema": "segedu.result/1"}'):
        path.write_text(text)
        with pytest.raises(InputError, match=r"tiny\.result\.json"):
            read_result(path)
    with pytest.raises(InputError, match="status is 'good'"):
        Result("ana", "tiny", "good", 1.0, 2)


def test_the_table_says_what_nobody_knows():
    table = format_results([Result("ana", "t", "infrastructure", None, 2, reason="no sandbox")])
    assert table.split("\n")[1].split() == [
        "ana",
        "infrastructure",
        "?",
        "2",
        "0.0",
        "no",
        "sandbox",
    ]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device; free some space"),
        (RuntimeError("what a student wrote"), "the grader failed: RuntimeError"),
    ],
)
def test_where_the_grader_fails_nobody_knows_the_marks(
    keys, hand_in, tmp_path, monkeypatch, error, said
):
    def fail(*_):
        raise error

    job = Job("ana", hand_in("ana"), keys, tmp_path / "graded")
    monkeypatch.setattr(module, "grade_one", fail)
    result = grade_safely(job)
    assert (result.status, result.score) == ("infrastructure", None)
    assert said in result.reason
    assert "wrote" not in result.reason
    assert read_result(result_path(tmp_path / "graded", "ana", "tiny")) == result
    if isinstance(error, OSError):
        monkeypatch.setattr(module, "write_result", fail)
        assert failed(job, "x").status == "infrastructure"


def test_a_fault_of_the_key_is_no_fault_of_a_submission(keys, hand_in, tmp_path, monkeypatch):
    def fail(_):
        raise InputError("the key is wrong")

    monkeypatch.setattr(module, "grade_one", fail)
    with pytest.raises(InputError, match="the key"):
        grade_safely(Job("ana", hand_in("ana"), keys, tmp_path / "graded"))


def test_whom_collect_has_nothing_of_gets_a_result_that_says_so(keys, hand_in, tmp_path, sandboxed):
    hand_in("ana")
    (tmp_path / "submissions" / "dora").mkdir()
    for name in ("a", "b"):
        hand_in("eve", name=name)
    (tmp_path / "submissions/collected.csv").write_text(
        "student,status,arrived,source,reason\nana,refused,,,two\nbo,nothing,,,nothing was handed in\n"
        "cem,refused,,,the zip is encrypted\n,unknown,,x.ipynb,nobody\n"
    )
    results = {
        r.student: r for r in grade_class(keys, tmp_path / "submissions", tmp_path / "graded")
    }
    assert {s: (r.status, r.score, r.reason) for s, r in results.items() if s != "ana"} == {
        "bo": ("invalid", 0, "nothing was handed in"),
        "cem": ("invalid", 0, "the zip is encrypted"),
        "dora": ("invalid", 0, "no notebook was handed in"),
        "eve": ("invalid", 0, "there are 2 notebooks, and none is named tiny.ipynb; hand in one"),
    }
    assert results["ana"].score == 5  # a notebook that is there all the same
    assert read_result(result_path(tmp_path / "graded", "bo", "tiny")) == results["bo"]
    assert count_students(keys, tmp_path / "submissions") == 5
    with pytest.raises(InputError, match="is no folder"):
        count_students(keys, tmp_path / "none")


def test_a_grader_whose_parent_is_killed_ends(keys, hand_in, tmp_path, sandboxed):
    hand_in("ana", {"double": "import time\ntime.sleep(300)"})
    code = f"""
        import sys
        from pathlib import Path
        from segedu.grading.job import Job
        from segedu.grading.pool import in_processes
        if __name__ == "__main__":
            job = Job("ana", Path({str(tmp_path / "submissions/ana/tiny.ipynb")!r}), Path({str(keys)!r}), Path({str(tmp_path / "graded")!r}))
            print("ready", flush=True)
            list(in_processes([job], 1))
        """
    script = tmp_path / "grading.py"
    script.write_text(textwrap.dedent(code))
    victim = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE)
    assert victim.stdout.readline() == b"ready\n"
    family = set()
    deadline = time.monotonic() + 30
    while len(family) < 3 and time.monotonic() < deadline:
        family |= set(psutil.Process(victim.pid).children(recursive=True))
        time.sleep(0.05)
    victim.kill()
    victim.wait()
    victim.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_without_a_sandbox_the_marks_are_the_same_and_every_result_says_so(
    keys, hand_in, tmp_path, monkeypatch, sandboxed
):
    monkeypatch.delenv("CI", raising=False)
    hand_in("ana")
    hand_in("bo", {"double": "def double(x):\n    return x"})
    submissions = tmp_path / "submissions"
    unsafe = [*grade_class(keys, submissions, tmp_path / "unsafe", boxed=False)]
    safe = [*grade_class(keys, submissions, tmp_path / "safe")]
    marks = [
        [
            (q.name, q.status, q.score)
            for r in sorted(these, key=lambda r: r.student)
            for q in r.questions
        ]
        for these in (unsafe, safe)
    ]
    assert marks[0] == marks[1]
    assert {r.sandbox["sandbox"] for r in unsafe} == {"none"}
    assert {r.sandbox["sandbox"] for r in safe} == {"bubblewrap"}
    assert [r.digest for r in unsafe] != [r.digest for r in safe]
    copies = [
        nbformat.read(tmp_path / kind / "ana" / "tiny.ipynb", 4) for kind in ("unsafe", "safe")
    ]
    assert [c.source for c in copies[0].cells[1:]] == [c.source for c in copies[1].cells[1:]]


def test_without_a_sandbox_nothing_is_graded_in_ci_or_on_a_cluster(
    keys, hand_in, tmp_path, monkeypatch
):
    hand_in("ana")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(InputError, match="refused where CI is set"):
        next(grade_class(keys, tmp_path / "submissions", tmp_path / "out", boxed=False))
    monkeypatch.delenv("CI")
    with pytest.raises(InputError, match="leave out --dask"):
        next(
            grade_class(
                keys, tmp_path / "submissions", tmp_path / "out", boxed=False, cluster="tcp://x:1"
            )
        )
    assert not (tmp_path / "out").exists()


def test_halves_of_characters_and_names_that_are_no_utf_8_cost_nothing(
    keys, hand_in, tmp_path, sandboxed
):
    odd = os.fsdecode(b"bo\xff")
    answers = {
        "ana": {"double": "# \ud800\ndef double(x): return np.asarray(x) * 2", "why": "\ud800 so"},
        odd: {"total": "raise ValueError(chr(0xD800))"},
        "cem": {"total": "def total(v): raise AssertionError(chr(0xD800))"},
        "dee": {"total": "def total(v): return chr(0xD800)"},
    }
    for student, given in answers.items():
        path = hand_in(student)
        path.write_text(json.dumps(answered(read_key(keys), given)))
    jobs = [
        Job(s, tmp_path / "submissions" / s / "tiny.ipynb", keys, tmp_path / "graded")
        for s in answers
    ]
    found = {job.student: grade_safely(job) for job in jobs}
    marks = {student: (result.status, result.score) for student, result in found.items()}
    assert marks == {s: ("needs-manual", 5 if s == "ana" else 2) for s in answers}
    out = tmp_path / "graded"
    assert len(list(write_feedback(out, tmp_path / "pages"))) == 4
    assert write_sheet(out, tmp_path / "sheet.csv") == 4
    assert take_sheet(out, tmp_path / "sheet.csv") == 0
    assert export_csv(list(read_graded(out)), tmp_path / "marks.csv").written == 0
    assert write_report(out, tmp_path / "report.html").exists()


def test_of_a_file_of_any_size_no_more_is_read_than_can_be_graded(keys, hand_in, tmp_path):
    path = hand_in("ana")
    os.truncate(path, 2**40)  # nearly all of it a hole
    result = grade_one(Job("ana", path, keys, tmp_path / "graded"))
    assert (result.status, result.score) == ("invalid", 0)
    assert "at most" in result.reason
