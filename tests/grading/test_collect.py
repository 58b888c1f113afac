import os
import zipfile
from datetime import UTC, datetime

import pytest
from test_archives import info, zipped
from test_moodle_inbox import HEADER
from typer.testing import CliRunner

from segedu.cli import app
from segedu.errors import InputError
from segedu.grading.collect import collect, format_collected, read_collected, read_times
from segedu.grading.moodle_inbox import Participant
from segedu.grading.roster import Person, read_arrivals

PEOPLE = {s: Person(s, n) for s, n in (("ana", "Ana Berg"), ("bo", "Bo Chu"), ("cem", "Cem Dur"))}
NONE = read_times(None, None, "UTC")


@pytest.fixture
def inbox(tmp_path):
    """An inbox, and a way to fill it."""
    folder = tmp_path / "inbox"
    folder.mkdir()

    def put(name, content=b"{}"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    put.folder = folder
    return put


@pytest.fixture
def collected(inbox, tmp_path):
    """Collect; what became of each, as status and reason."""

    def run(times=NONE, name="tiny", source=None):
        rows = collect(source or inbox.folder, tmp_path / "out", PEOPLE, times, name)
        return {row.student or row.source: (row.status, row.reason) for row in rows}

    return run


def out_files(tmp_path):
    return sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.ipynb")
    )


def snapshot(folder):
    return {
        p: (p.lstat().st_mtime_ns, p.lstat().st_mode, p.is_file() and p.read_bytes())
        for p in folder.rglob("*")
    }


def test_a_file_a_folder_and_a_zip_are_taken_and_the_inbox_is_as_it_was(inbox, collected, tmp_path):
    inbox("ana.ipynb", b"1")
    inbox("bo/my work (2).ipynb", b"2")
    inbox("bo/numpy.py", b"evil")
    inbox("bo/.ipynb_checkpoints/my work-checkpoint.ipynb", b"old")
    inbox("cem.zip", zipped(("w/t.ipynb", b"3"), ("__MACOSX/w/._t.ipynb", b"x"), ("w/a.png", b"")))
    before = snapshot(inbox.folder)
    assert set(collected().values()) == {("collected", "")}
    assert snapshot(inbox.folder) == before
    assert out_files(tmp_path) == ["ana/tiny.ipynb", "bo/tiny.ipynb", "cem/tiny.ipynb"]
    assert [(tmp_path / "out" / s / "tiny.ipynb").read_bytes() for s in PEOPLE] == [
        b"1",
        b"2",
        b"3",
    ]
    assert not list((tmp_path / "out").rglob("*.py"))


def test_everybody_has_a_line_and_so_has_what_nobody_on_the_roster_handed_in(
    inbox, collected, tmp_path
):
    inbox("ana.ipynb")
    inbox("zoe.ipynb")
    inbox("=HYPERLINK(1).ipynb")
    found = collected()
    assert found == {
        "ana": ("collected", ""),
        "bo": ("nothing", "nothing was handed in"),
        "cem": ("nothing", "nothing was handed in"),
        "=HYPERLINK(1).ipynb": ("unknown", "nobody on the roster"),
        "zoe.ipynb": ("unknown", "nobody on the roster"),
    }
    text = (tmp_path / "out" / "collected.csv").read_text()
    assert ",'=HYPERLINK" in text
    assert read_collected(tmp_path / "out") == dict.fromkeys(["bo", "cem"], "nothing was handed in")
    assert read_collected(tmp_path) == {}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.ipynb", "b.ipynb"], r"^2 notebooks were handed in \('a.ipynb', 'b.ipynb'\)"),
        (["x/tiny.ipynb", "y/tiny.ipynb"], "^2 notebooks"),
        (["report.pdf"], r"^no notebook was handed in; found 'report.pdf'"),
        (["a.rar"], r"'a.rar' is no zip"),
        (["e\u202egpj.ipynb"], "cannot be seen"),
        (["A.ipynb", "a.ipynb"], "same name"),
    ],
)
def test_two_notebooks_or_none_or_odd_files_are_refused_with_a_reason(
    inbox, collected, names, said
):
    import re

    for name in names:
        inbox(f"ana/{name}")
    inbox("bo.ipynb")
    found = collected()
    assert found["ana"][0] == "refused"
    assert re.search(said, found["ana"][1])
    assert found["bo"] == ("collected", "")


def test_an_empty_folder_has_no_notebook(inbox, collected):
    (inbox.folder / "ana").mkdir()
    assert collected()["ana"] == ("refused", "no notebook was handed in; found no file at all")


def test_of_two_the_one_of_the_assignments_name_is_taken_and_the_other_named(
    inbox, collected, tmp_path
):
    inbox("ana/tiny.ipynb", b"right")
    inbox("ana/old.ipynb", b"wrong")
    status, reason = collected()["ana"]
    assert status == "collected"
    assert "'old.ipynb', 'tiny.ipynb'" in reason
    assert (tmp_path / "out/ana/tiny.ipynb").read_bytes() == b"right"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zipped(("../../bo/tiny.ipynb", b"{}")), "leads out"),
        (zipped((info("x.ipynb", 0o120777), b"/etc/passwd")), "is a link"),
        (zipped(("x.ipynb", bytes(4 * 2**20))), "200 times"),
        (zipped(("in.zip", zipped(("x.ipynb", b"{}")))), "within an archive"),
        (b"no zip", "cannot be read"),
    ],
)
def test_a_hostile_zip_costs_its_own_student_only(inbox, collected, tmp_path, content, said):
    inbox("ana.zip", content)
    inbox("bo.ipynb", b"good")
    found = collected()
    assert found["ana"][0] == "refused"
    assert said in found["ana"][1]
    assert out_files(tmp_path) == ["bo/tiny.ipynb"]
    assert (tmp_path / "out/bo/tiny.ipynb").read_bytes() == b"good"


def test_links_and_pipes_in_the_inbox_are_not_followed(inbox, collected, tmp_path):
    (inbox.folder / "ana.ipynb").symlink_to("/etc/passwd")
    (inbox.folder / "bo").symlink_to("/etc")
    os.mkfifo(inbox.folder / "cem.ipynb")
    found = collected()
    assert [found[s][0] for s in PEOPLE] == ["refused"] * 3
    assert "link" in found["ana"][1]
    assert "pipe" in found["cem"][1]
    assert out_files(tmp_path) == []


def test_collecting_again_takes_the_new_and_removes_what_is_no_longer_there(
    inbox, collected, tmp_path
):
    inbox("ana.ipynb", b"1")
    other = inbox("bo.ipynb", b"1")
    collected()
    inbox("ana.ipynb", b"2")
    other.unlink()
    assert collected()["bo"][0] == "nothing"
    assert out_files(tmp_path) == ["ana/tiny.ipynb"]
    assert (tmp_path / "out/ana/tiny.ipynb").read_bytes() == b"2"


def moodle(tmp_path):
    path = tmp_path / "grades.csv"
    rows = [
        'Participant 11,Ana Berg,ana@x,S,,10,Yes,"Wednesday, 10 June 2026, 2:14 PM",-,',
        "Participant 12,Bo Chu,bo@x,No submission,,10,Yes,-,-,",
    ]
    path.write_text(HEADER + "\n".join(rows) + "\n")
    return path


def test_moodles_folders_files_and_times_are_understood(inbox, collected, tmp_path):
    inbox("Ana Berg_11_assignsubmission_file_/My Work.ipynb", b"1")
    inbox("Ana Berg_11_assignsubmission_onlinetext_/onlinetext.html", b"hello")
    os.utime(inbox.folder / "Ana Berg_11_assignsubmission_file_/My Work.ipynb", (0, 0))
    inbox("Bo Chu_12_assignsubmission_file_a.ipynb", b"2")
    inbox("Bo Chu_12_assignsubmission_file_notes.txt", b"2")
    inbox("Cem Dur_13_assignsubmission_file_w.zip", zipped(("w.ipynb", b"3")))
    inbox("Grades.csv", moodle(tmp_path).read_bytes())
    times = read_times(None, moodle(tmp_path), "Europe/Berlin")
    found = collected(times)
    assert found == dict.fromkeys(PEOPLE, ("collected", ""))
    assert read_arrivals(tmp_path / "out/arrivals.csv") == {
        "ana": datetime(2026, 6, 10, 12, 14, tzinfo=UTC)
    }
    assert (tmp_path / "out/cem/tiny.ipynb").read_bytes() == b"3"


def test_moodles_zip_is_read_as_it_is_and_one_bad_name_in_it_costs_one(collected, tmp_path):
    path = tmp_path / "all.zip"
    path.write_bytes(
        zipped(
            ("Ana Berg_11_assignsubmission_file_/a.ipynb", b"1"),
            ("Bo Chu_12_assignsubmission_file_/b\u202e.ipynb", b"2"),
            ("Cem Dur_13_assignsubmission_file_/w.zip", zipped(("w.ipynb", b"3"))),
        )
    )
    found = collected(source=path)
    assert found["ana"] == found["cem"] == ("collected", "")
    assert found["bo"][0] == "refused"
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"all\.zip: the zip cannot be read"):
        collected(source=path)


def test_of_several_hand_ins_the_last_by_the_platforms_time_counts(inbox, collected, tmp_path):
    first = inbox("ana.ipynb", b"first")
    inbox("ana.zip", zipped(("x.ipynb", b"second")))
    os.utime(first, (2e9, 2e9))  # a date of the file's own, which says nothing
    status, reason = collected()["ana"]
    assert status == "refused"
    assert "nobody knows which came last" in reason
    table = tmp_path / "arrivals.csv"
    table.write_text(
        "student,arrived,file\nana,2026-12-01T10:00Z,ana.ipynb\nana,2026-12-01T11:00Z,ana.zip\n"
    )
    assert collected(read_times(table, None, "UTC"))["ana"] == ("collected", "")
    assert (tmp_path / "out/ana/tiny.ipynb").read_bytes() == b"second"
    assert read_arrivals(tmp_path / "out/arrivals.csv")["ana"].hour == 11


def test_a_list_of_arrivals_is_believed_before_the_worksheet(inbox, collected, tmp_path):
    inbox("Ana Berg_11_assignsubmission_file_/a.ipynb")
    table = tmp_path / "arrivals.csv"
    table.write_text("student,arrived\nana,2026-06-12T00:00Z\n")
    times = read_times(table, moodle(tmp_path), "UTC")
    assert times.participants["12"] == Participant("12", "Bo Chu", "bo@x")
    collected(times)
    assert read_arrivals(tmp_path / "out/arrivals.csv")["ana"].day == 12


def test_odd_arguments_are_refused(inbox, tmp_path):
    with pytest.raises(InputError, match="lies in the inbox"):
        collect(inbox.folder, inbox.folder / "out", PEOPLE, NONE)
    with pytest.raises(InputError, match="lies in the inbox"):
        collect(inbox.folder, inbox.folder, PEOPLE, NONE)
    with pytest.raises(InputError, match=r"--name is '\.\./x'"):
        collect(inbox.folder, tmp_path / "out", PEOPLE, NONE, "../x")
    with pytest.raises(InputError, match="no folder and no zip"):
        collect(tmp_path / "none", tmp_path / "out", PEOPLE, NONE)


def test_the_command_prints_a_table_and_its_status_says_whether_all_is_there(inbox, tmp_path):
    (tmp_path / "roster.csv").write_text("student,name\nana,Ana Berg\n")

    def call(*more):
        words = [
            "collect",
            inbox.folder,
            "-o",
            tmp_path / "out",
            "--roster",
            tmp_path / "roster.csv",
        ]
        return CliRunner().invoke(app, [str(word) for word in [*words, *more]])

    done = call()
    assert done.exit_code == 3
    assert "ana      nothing" in done.output
    inbox("Ana Berg_11_assignsubmission_file_/a.ipynb")
    inbox("g.csv", moodle(tmp_path).read_bytes())
    done = call("--name", "tiny", "--zone", "Europe/Berlin")
    assert done.exit_code == 0, done.output
    assert "2026-06-10T12:14:00+00:00" in done.output
    assert "were read as Europe/Berlin" in done.output
    inbox("h.csv", moodle(tmp_path).read_bytes())
    done = call()
    assert done.exit_code == 1
    assert "has 2 worksheets" in done.output
    assert format_collected([]) == "student  status  arrived  reason"


def test_a_zip_made_by_a_tool_that_names_folders_is_read(collected, tmp_path):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ana/", "")
        archive.writestr("ana/x.ipynb", "{}")
        archive.writestr("bo.ipynb", "{}")
    found = collected(source=path)
    assert found["ana"] == found["bo"] == ("collected", "")


def test_the_grader_is_told_who_was_refused_and_who_has_nothing(inbox, collected, tmp_path):
    inbox("ana.ipynb")
    inbox("bo/a.ipynb")
    inbox("bo/b.ipynb")
    done = collected()
    assert [done[student][0] for student in PEOPLE] == ["collected", "refused", "nothing"]
    assert read_collected(tmp_path / "out") == {s: done[s][1] for s in ("bo", "cem")}


def test_a_link_to_a_folder_is_not_entered(inbox, collected, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "tiny.ipynb").write_bytes(b"{}")
    (inbox.folder / "bo").symlink_to(tmp_path / "elsewhere")
    status, reason = collected()["bo"]
    assert status == "refused"
    assert "link" in reason


def test_a_text_typed_into_moodle_is_no_file_handed_in(inbox, collected):
    inbox("Bo Chu_78_assignsubmission_onlinetext_/onlinetext.html", b"<p>done</p>")
    assert collected()["bo"][0] == "nothing"
