import pytest

from segedu.errors import InputError
from segedu.grading.keys import answered, read_key, solution_names


def by_name(notebook, name):
    return next(c for c in notebook.cells if c.id == name)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "other"}'])
def test_what_is_no_key_is_refused(tmp_path, text):
    (tmp_path / "key.json").write_text(text)
    with pytest.raises(InputError, match=r"key\.json"):
        read_key(tmp_path)


def test_a_submission_can_be_made_from_a_key(secret):
    full = answered(secret)
    assert "return np.asarray(x) * 2" in by_name(full, "double").source
    other = answered(secret, {"double": "double = 3", "total": ""})
    assert by_name(other, "double").source == "double = 3"
    assert "YOUR CODE HERE" in by_name(other, "total").source
    assert "HIDDEN" not in by_name(other, "double_test").source
    assert solution_names(secret) == {"double": ["double"], "total": ["total"]}
