import pytest
from graded_class import RIGHT, TOTAL, WHY, write_class, write_work
from typer.testing import CliRunner

from segedu import deploy
from segedu.cli import app
from segedu.cli.returning import NEEDS_PERSON


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def graded(tmp_path):
    return write_class(tmp_path / "graded")


def test_what_needs_a_person_is_shown_and_marks_are_taken(graded):
    write_work(graded, "ana", [RIGHT, TOTAL, WHY], answer="\x1b[2JBecause.\n" + "x" * 700)
    shown = call("manual", graded)
    assert shown.exit_code == NEEDS_PERSON
    assert "ana  why (of 1): a person marks it\n    Because.\n    xxx" in shown.output
    assert "x ...\n" in shown.output
    assert "1 answers need a person" in shown.output
    given = call("manual", graded, "ana", "why", 0.5, "--comment", "Half.", "--grader", "rm")
    assert given.exit_code == 0
    assert given.output.endswith("tiny.manual.json\n0 answers need a person\n")
    wrong = call("manual", graded, "ana", "why")
    assert wrong.exit_code == 1
    assert "expected STUDENT QUESTION MARKS together" in wrong.output


def test_a_table_of_marks_goes_out_and_comes_back(graded, tmp_path):
    sheet = tmp_path / "marks.csv"
    out = call("manual", graded, "--sheet", sheet)
    assert out.exit_code == NEEDS_PERSON
    assert "1 answers in" in out.output
    sheet.write_text(sheet.read_text().replace("why,1,,", "why,1,1,"))
    back = call("manual", graded, "--take", sheet)
    assert back.exit_code == 0
    assert "1 marks taken" in back.output


def test_pages_and_a_report_are_written(graded, tmp_path):
    (tmp_path / "roster.csv").write_text("student,name\nana,Ana Pérez\n")
    done = call("feedback", graded, "-o", tmp_path / "out", "--roster", tmp_path / "roster.csv")
    assert (done.exit_code, done.output.split()[0]) == (0, "4")
    assert "Ana Pérez" in (tmp_path / "out" / "ana" / "tiny.html").read_text()
    assert call("feedback", graded, "-o", tmp_path / "out").exit_code == 0
    assert "Ana Pérez" not in (tmp_path / "out" / "ana" / "tiny.html").read_text()
    report = call("report", graded, "-o", tmp_path / "r.html", "--roster", tmp_path / "roster.csv")
    assert report.exit_code == 0
    assert "Ana Pérez" in (tmp_path / "r.html").read_text()
    assert call("report", graded, "-o", tmp_path / "r.html").exit_code == 0


@pytest.mark.parametrize("form", ["csv", "nbgrader", "gradescope"])
def test_grades_go_to_other_systems_and_unknown_ones_are_named(graded, tmp_path, form):
    done = call("export", graded, "--format", form, "-o", tmp_path / "out")
    assert done.exit_code == NEEDS_PERSON
    assert "2 grades in" in done.output
    assert "no grade: ana: why: a person marks it" in done.output
    assert "no grade: dee: no sandbox" in done.output
    (graded / "dee" / "tiny.result.json").unlink()
    call("manual", graded, "ana", "why", 1)
    done = call("export", graded, "--format", form, "-o", tmp_path / "out")
    assert (done.exit_code, "3 grades in" in done.output) == (0, True)


def test_moodles_worksheet_is_filled_in(graded, tmp_path):
    sheet, roster = tmp_path / "w.csv", tmp_path / "roster.csv"
    sheet.write_text("Identifier,Full name,Grade,Maximum Grade\nParticipant 1,Bo,,3.00\n")
    roster.write_text("student,name\nbo,Bo\n")
    arguments = ("export", graded, "--format", "moodle", "-o", tmp_path / "o.csv")
    missing = call(*arguments)
    assert "needs --worksheet" in missing.output
    other = call(*arguments, "--worksheet", sheet, "--roster", roster)
    assert other.exit_code == 1
    assert "give --scale" in other.output
    done = call(*arguments, "--worksheet", sheet, "--roster", roster, "--scale")
    assert done.exit_code == NEEDS_PERSON
    assert "Bo,1.50,3.00" in (tmp_path / "o.csv").read_text()


def test_export_says_what_it_needs(graded, monkeypatch, tmp_path):
    assert "for grades give --format" in call("export", graded).output
    assert "-o is missing" in call("export", graded, "--format", "csv").output
    asked = []
    monkeypatch.setattr(deploy, "export_checkpoint", lambda *a, **k: asked.append((a, k)) or "done")
    done = call("export", tmp_path / "a.pt", "--pictures", 3)
    assert done.output == "done\n"
    assert asked[0][0][1].name == "model.onnx"
    assert asked[0][1] == {"int8": False, "calibrate": "", "count": 3}


def test_a_class_to_try_things_on_is_made_once(source, tmp_path):
    arguments = ("demo-class", tmp_path / "demo", "--source", source, "--students", 2)
    done = call(*arguments)
    assert done.exit_code == 0
    assert "2 students" in done.output
    again = call(*arguments)
    assert again.exit_code == 1
    assert "has something in it" in again.output
