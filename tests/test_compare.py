import numpy as np
import pytest
import torch

from segedu.compare import difference, kind_of, name_of, short

NAN = float("nan")
INF = float("inf")


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (1, 1.0),
        (np.float64(2), 2),
        (np.array(2.0), 2),
        (True, np.bool_(1)),
        ("a", "a"),
        ([1, (2.0, NAN)], (1, [2, NAN])),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}),
        (None, None),
        (NAN, NAN),
        (INF, INF),
        (1e8, 1e8 + 1),
        (1j, 1j),
        (np.array(["a", "b"]), np.array(["a", "b"])),
        (np.arange(3, dtype=np.uint8), np.arange(3)),
        (torch.tensor([NAN, 1.0]), torch.tensor([NAN, 1 + 1e-7], dtype=torch.float64)),
        (torch.ones(2, requires_grad=True) * 3, torch.full((2,), 3.0)),
        (torch.ones(2, dtype=torch.bfloat16), torch.ones(2)),
        ({1, 2}, {2, 1}),
    ],
)
def test_values_that_mean_the_same_do_not_differ(got, want):
    assert difference(got, want, 1e-6) is None


@pytest.mark.parametrize(
    ("got", "want", "told"),
    [
        (0.5, 0.25, ("0.5", "0.25")),
        (0.50001, 0.50002, ("0.50001", "0.50002")),
        (0, 2e-6, ("0", "2e-06")),
        (True, False, ("True", "False")),
        ("a", "b", ("'a'", "'b'")),
        (NAN, 0.0, ("nan", "0")),
        (INF, -INF, ("inf", "-inf")),
        (1e300, INF, ("1e+300", "inf")),
        (2 + 1j, 2.0, ("2+1j", "2")),
        (1, True, ("the number 1", "the bool True")),
        (None, [1], ("None", "the list [1]")),
        ("1", 1, ("the string '1'", "the number 1")),
        ({1}, 1, ("the set {1}", "the number 1")),
        (torch.tensor(1.0), 1.0, ("tensor(1)", "the number 1")),
        ([1.0], torch.tensor([1.0]), ("the list [1]", "tensor([1])")),
        (np.ones(2), torch.ones(2), ("array([1, 1])", "tensor([1, 1])")),
        (torch.ones(2, 3), torch.ones(3, 2), ("shape 2x3", "shape 3x2")),
        (torch.tensor(1.0), torch.ones(1), ("shape () (one number)", "shape 1")),
        (torch.ones(2), torch.ones(2, dtype=torch.int64), ("float32 values", "int64")),
        (np.array([True]), np.array([1]), ("bool values", "int64")),
        (torch.tensor([1.0, 2]), torch.tensor([1.0, 3]), ("tensor([1, 2])", "tensor([1, 3])")),
        ([1, 2], [1], ("2 entries, [1, 2]", "1, [1]")),
        ([1, 2], [1, 3], ("[1, 2]", "[1, 3]")),
        ({"a": 1}, {"b": 1}, ("the keys ['a']", "['b']")),
        ({"a": 1}, {"a": 2}, ("{'a': 1}", "{'a': 2}")),
        ({1}, {2}, ("{1}", "{2}")),
    ],
)
def test_a_difference_is_told_by_what_differs(got, want, told):
    assert difference(got, want, 1e-6) == told


def test_a_large_array_is_told_by_its_first_entry_that_differs():
    want = torch.zeros(9, 9)
    got = want.clone()
    got[3, 4] = 0.5
    got[5, 5] = 7
    assert difference(got, want, 1e-6) == ("0.5 at [3, 4] of shape 9x9", "0")
    assert difference((1, got), (1, want), 1e-6) == ("0.5 at [3, 4] of shape 9x9 in entry 1", "0")
    assert difference([got], [want], tolerance=10) is None


def test_a_long_list_is_told_by_its_first_entry_that_differs():
    want = list(range(100))
    assert difference([*want[:-1], 7], want, 0) == ("7 in entry 99", "99")


def test_large_whole_numbers_are_compared_exactly_when_nothing_is_tolerated():
    assert difference(np.array([2**53]), np.array([2**53 + 1]), 0) is not None


def test_objects_that_cannot_be_compared_differ():
    class Stubborn:
        def __eq__(self, other):
            raise TypeError

        __hash__ = None

        def __repr__(self):
            return "Stubborn()"

    assert difference(Stubborn(), Stubborn(), 0) == ("Stubborn()", "Stubborn()")


def test_a_text_is_cut_where_it_is_long():
    assert short("a" * 100) == "'" + "a" * 56 + "..."
    assert short(print) == "print"
    assert short([0.123456, 1]) == "[0.1235, 1]"
    assert short(torch.zeros(13)) == "tensor of shape 13"


def test_a_function_without_a_name_is_called_answer():
    assert name_of(lambda: 0) == "answer"
    assert name_of(torch.nn.Identity()) == "Identity"
    assert kind_of(torch.nn.Identity()) == "object"
