"""The rules for chapters, each seen to hold for a good chapter and to fail for a bad one."""

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
from nbclient.exceptions import CellExecutionError

from segedu.notebooks.build import prepare

REPOSITORY = "https://github.com/someone/course"

EXERCISE = '''\
# %% tags=["exercise"]
def double(x):
    """Twice `x`."""
    raise NotImplementedError  # YOUR CODE HERE


# %% tags=["exercise-check"]
from segedu.exercises import Exercise

exercise = Exercise(
    solution=lambda x: 2 * x,
    inputs=[(size,), (3,)],
    misconceptions={
        "that is the square": lambda x: x * x,
        "two was added": lambda x: x + 2,
    },
)
exercise.check(double)


# %% tags=["solution"]
def double(x):
    return x + x


exercise.check(double)
'''

GOOD = f"""\
# %% [markdown]
# # A chapter
#
# **You will be able to** double. See [masks](02_masks_and_data.ipynb#rle), [itself](01_a.py),
# [the paper](https://example.org/a) and [below](#summary).

# %% tags=["parameters"]
size: int = 1
names = ["a", "b"]

# %% [markdown]
# ## What goes wrong: halves
#
# > **In the article.** Nothing. $x_{{i}}$ is `code`.
#
# <details><summary>One</summary>1</details> <details>2</details> <details>3</details>

{EXERCISE}
{EXERCISE}
# %% [markdown]
# ## Summary
"""


@pytest.fixture
def chapter(tmp_path):
    def make(old="", new=""):
        assert old in GOOD
        source = tmp_path / "01_a.py"
        source.write_text(GOOD.replace(old, new) if old else GOOD)
        return prepare(source, repository=REPOSITORY)

    return make


def faults(notebook, folder):
    rules = [missing_parts, parameter_faults, exercise_faults, long_cells, site_only_syntax]
    return [fault for rule in rules for fault in rule(notebook)] + [*broken_links(notebook, folder)]


def test_a_good_chapter_has_no_fault(chapter, tmp_path):
    assert faults(chapter(), tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("You will be able to", "Learn to", "goals in the first cell"),
        ("What goes wrong", "Mistakes", "a heading 'What goes wrong'"),
        ("## Summary", "In summary", "a heading 'Summary'"),
        ("In the article", "In a paper", 'a part "In the article"'),
        ("<details>2</details>", "", "three questions"),
        ('tags=["parameters"]', "", "0 cells are tagged parameters"),
        ('["a", "b"]', "max(1, 2)", "no plain value: names = max(1, 2)"),
        ("size: int = 1", "size: int", "no plain value: size: int"),
        ("size: int = 1", "import os", "no plain value: import os"),
        (EXERCISE, "", "2 to 4 exercises"),
        (EXERCISE, EXERCISE * 3, "2 to 4 exercises"),
        ('tags=["solution"]', "", "2 to 4 exercises"),
        ("exercise.check(double)\n\n\n", "\n\n", "exercise-check does not end in exercise.check"),
        ("exercise = Exercise(", "other = Exercise(", "makes no exercise = Exercise(...)"),
        ('names = ["a", "b"]', "names = 1" + "\nnames = 1" * 14, "has 16 lines, of at most 15"),
        ("## Summary", "## Summary\n# :::{note}", "(## Summary) has :::"),
        ("## Summary", "## Summary\n# ```{note}", "(## Summary) has ```{"),
        ("## Summary", "## Summary\n# {ref}`x`", "(## Summary) has {ref}`"),
        ("02_masks_and_data.ipynb", "02_masks.ipynb", "a link leads nowhere: 02_masks.ipynb"),
    ],
)
def test_a_fault_is_named(chapter, tmp_path, old, new, told):
    found = faults(chapter(old, new), tmp_path)
    assert found
    assert all(told in fault for fault in found)


def test_a_chapter_whose_badge_is_gone_is_named(chapter):
    notebook = chapter()
    notebook.cells[0].source = notebook.cells[0].source.replace("colab", "example")
    assert list(missing_parts(notebook)) == ["the badge"]


def test_the_chapters_are_numbered_in_order():
    assert [int(name[:2]) for name in CHAPTERS] == list(range(1, 23))


def test_good_exercises_are_proved_with_the_parameters_given(chapter, tmp_path):
    prove_exercises(chapter(), {"size": 5}, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("x * x", "2 * x", "'that is the square' gets 'right'"),
        ("return x + x", "return x + 1", "wrong: double(3) gives 4, expected 6"),
        ("raise NotImplementedError", "return 2 * x", "the stub gets 'right'"),
    ],
)
def test_a_bad_exercise_is_told(chapter, tmp_path, old, new, told):
    with pytest.raises(CellExecutionError) as error:
        prove_exercises(chapter(old, new), {}, tmp_path)
    assert told in str(error.value)


def test_exercises_are_proved_with_the_given_parameters_not_the_chapters_own(chapter, tmp_path):
    prove_exercises(chapter("(3,)", "(size,)"), {}, tmp_path)
    with pytest.raises(CellExecutionError, match="'that is the square' gets 'right'"):
        prove_exercises(chapter("(3,)", "(size,)"), {"size": 2}, tmp_path)
