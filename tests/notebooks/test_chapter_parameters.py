import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from segedu.errors import InputError
from segedu.notebooks.parameters import parameter_names, read_parameters

KNOWN = {"01_first": ["seed", "epochs"], "08_metrics": ["seed"], "10_unet": ["seed", "epochs"]}


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "smoke.yml"
        path.write_text(text)
        return read_parameters(path, KNOWN)

    return read


def test_chapters_are_named_by_number_or_name(read):
    values = read("1: {seed: 1}\n'08': {seed: 2}\n10_unet: {epochs: 3}")
    assert values == {"01_first": {"seed": 1}, "08_metrics": {"seed": 2}, "10_unet": {"epochs": 3}}


def test_a_value_for_all_goes_where_there_is_such_a_parameter_and_gives_way_to_the_chapters_own(
    read,
):
    values = read("all: {epochs: 2, seed: 5}\n10: {epochs: 9}")
    assert values == {
        "01_first": {"epochs": 2, "seed": 5},
        "08_metrics": {"seed": 5},
        "10_unet": {"epochs": 9, "seed": 5},
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("3: {seed: 1}", "smoke.yml: no chapter '3'; there are 01_first, 08_metrics, 10_unet"),
        ("8: {epochs: 1}", "08_metrics has a parameter 'epochs'; there are seed"),
        ("all: {size: 1}", "no chapter has a parameter 'size'; there are epochs, seed"),
        ("8: 3", "8 has 3; expected names with values"),
        ("seed", "has no chapters; expected lines such as 01: {seed: 1}"),
        ("{", "is no YAML file that can be read"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_could(read, text, told):
    with pytest.raises(InputError) as error:
        read(text)
    assert told in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no YAML file that can be read"):
        read_parameters(tmp_path / "none.yml", KNOWN)


def test_parameters_are_the_names_that_the_tagged_cell_assigns():
    tagged = new_code_cell("seed: int = 0\na, b = 1, c\nprint(seed)  # epochs = 3")
    tagged.metadata["tags"] = ["parameters"]
    cells = [new_markdown_cell("x = 1"), new_code_cell("y = 1"), tagged]
    assert parameter_names(new_notebook(cells=cells)) == ["seed", "a", "b"]
