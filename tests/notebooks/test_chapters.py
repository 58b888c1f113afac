"""Every chapter of the course: it has its parts, its notebook is up to date, its exercises tell."""

from pathlib import Path

import pytest
from chapter_rules import (
    CHAPTERS,
    broken_links,
    exercise_faults,
    long_cells,
    missing_parts,
    parameter_faults,
    prove_exercises,
    site_only_syntax,
)

from segedu.notebooks.build import LARGEST, prepare, repository_address, stale
from segedu.notebooks.document import read_notebook
from segedu.notebooks.parameters import parameter_names, read_parameters
from segedu.notebooks.tidy import flaws

COURSE = Path(__file__).parents[2] / "course"
SMOKE = COURSE / "parameters" / "smoke.yml"
SOURCES = sorted((COURSE / "source").glob("*.py"))

each_chapter = pytest.mark.parametrize("source", SOURCES, ids=[path.stem for path in SOURCES])


def prepared(source):
    return prepare(source, repository=repository_address())


def notebook_of(source):
    return COURSE / f"{source.stem}.ipynb"


@each_chapter
def test_a_chapter_is_one_of_the_syllabus(source):
    assert source.stem in CHAPTERS


@each_chapter
def test_a_chapter_has_all_its_parts(source):
    assert list(missing_parts(prepared(source))) == []


@each_chapter
def test_a_chapters_parameters_are_plain_values_in_one_cell(source):
    assert list(parameter_faults(prepared(source))) == []


@each_chapter
def test_a_chapter_has_two_to_four_exercises_each_with_check_and_solution(source):
    assert list(exercise_faults(prepared(source))) == []


@each_chapter
def test_a_code_cell_is_short(source):
    assert list(long_cells(prepared(source))) == []


@each_chapter
def test_markdown_reads_alike_everywhere(source):
    assert list(site_only_syntax(prepared(source))) == []


@each_chapter
def test_links_lead_somewhere(source):
    assert list(broken_links(prepared(source), COURSE)) == []


@each_chapter
def test_the_stored_notebook_is_what_its_source_gives(source):
    assert stale(source, notebook_of(source), repository=repository_address()) == []


@each_chapter
def test_the_stored_outputs_come_from_one_clean_run(source):
    assert flaws(read_notebook(notebook_of(source))) == []


@each_chapter
def test_the_stored_notebook_is_at_most_one_megabyte(source):
    assert notebook_of(source).stat().st_size <= LARGEST


@pytest.mark.slow
@each_chapter
def test_every_exercise_tells_its_stub_its_solution_and_each_misconception(source):
    known = {path.stem: parameter_names(prepared(path)) for path in SOURCES}
    values = read_parameters(SMOKE, known) if SMOKE.exists() else {}
    prove_exercises(prepared(source), values.get(source.stem, {}), COURSE)


@pytest.mark.parametrize("name", ["smoke", "gpu", "other_seed"])
def test_the_files_of_parameters_name_chapters_and_parameters_that_there_are(name):
    known = {path.stem: parameter_names(prepared(path)) for path in SOURCES}
    assert read_parameters(COURSE / "parameters" / f"{name}.yml", known)


def test_a_gpus_run_is_larger_where_that_makes_sense():
    known = {path.stem: parameter_names(prepared(path)) for path in SOURCES}
    larger = read_parameters(COURSE / "parameters" / "gpu.yml", known)
    assert {int(chapter[:2]) for chapter in larger} >= {10, 11, 12, 18, 20}


def test_every_notebook_has_a_source():
    assert {path.stem for path in COURSE.glob("*.ipynb")} <= {path.stem for path in SOURCES}
