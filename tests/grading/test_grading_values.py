import itertools
import json
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segedu.grading.values import DEEPEST, MOST_ITEMS, NotPlain, decode, encode

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


def crossed(value):
    return decode(json.loads(json.dumps(encode(value))))


@given(plain)
def test_plain_values_cross_as_they_are_with_their_types(value):
    got = crossed(value)
    assert got == value
    assert repr(got) == repr(value)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 2 + 3j, 2**100, -(2**70), 1e308])
def test_numbers_that_json_does_not_have_cross_too(value):
    assert crossed(value) == value


def test_nan_crosses_as_nan():
    assert np.isnan(crossed(float("nan")))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.array([[True, False]]),
        np.array(2.5),
        np.zeros((0, 4), dtype=np.float32),
        np.array([1 + 2j, np.nan]),
        np.arange(6, dtype=np.uint8).reshape(3, 2).T,
        np.arange(4, dtype=">i4"),
    ],
)
def test_arrays_cross_with_shape_and_kind(array):
    got = crossed(array)
    np.testing.assert_array_equal(got, array)
    assert got.dtype.name == array.dtype.name
    assert got.shape == array.shape
    got.fill(0)  # it is a copy of its own


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (range(3), [0, 1, 2]),
        ((n * n for n in (1, 2)), [1, 4]),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.items(), [("a", 1)]),
        (zip([1], "b", strict=True), [(1, "b")]),
        ({1, "a", (2, 3)}, {1, "a", (2, 3)}),
        (frozenset([1.5]), {1.5}),
        (Fraction(1, 4), 0.25),
        (Decimal("0.1"), 0.1),
        (2**7900, 2**7900),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_nearly_plain_crosses_as_what_it_stands_for(value, expected):
    got = crossed([value])[0]
    assert got == expected
    assert type(got) is type(expected)


def test_numbers_of_more_than_64_bits_cross_as_their_nearest():
    assert crossed(np.longdouble(2.5)) == np.float64(2.5)
    got = crossed(np.array([1 + 2j], dtype=np.clongdouble))
    assert (got.dtype, got[0]) == (np.complex128, 1 + 2j)


def test_a_numpy_number_stays_one():
    assert type(crossed(np.float32(0.5))) is np.float32
    assert type(crossed(np.float64(0.5))) is np.float64  # though it is a float, too


def test_tensors_cross_as_tensors_without_their_graph():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    got = crossed({"x": x * 2})["x"]
    assert torch.equal(got, torch.tensor([2.0, 4.0]))
    assert not got.requires_grad
    assert crossed(torch.tensor([1.5], dtype=torch.bfloat16)).dtype == torch.float32


class AlwaysEqual(float):
    def __eq__(self, other):
        return True

    __hash__ = float.__hash__


class Claims(list):
    def __eq__(self, other):
        return True

    __hash__ = None


def test_an_object_that_is_equal_to_everything_crosses_as_what_it_holds():
    assert crossed(AlwaysEqual(3.0)) != 4.0
    assert crossed(Claims([1])) != [2]
    assert type(crossed(AlwaysEqual(3.0))) is float


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, print},
        print,
        itertools.count(),
        2**9000,
        -(2**9000),
        np.array([object()]),
        np.array(["text"]),
        np.zeros(3_000_000),
        list(range(MOST_ITEMS + 1)),
        "x" * (64 * MOST_ITEMS + 64),
        np.datetime64("2026-01-01"),
    ],
)
def test_what_is_not_plain_or_too_large_does_not_cross(value):
    with pytest.raises(NotPlain):
        encode(value)


def test_what_is_too_deep_does_not_cross():
    deep = []
    for _ in range(DEEPEST + 1):
        deep = [deep]
    with pytest.raises(NotPlain):
        encode(deep)


@pytest.mark.parametrize(
    "forged",
    [
        [1],
        {},
        {"list": [1], "tuple": [1]},
        {"set": [{"list": []}]},
        {"set": "ab"},
        {"frozenset": [1]},
        {"pickle": "gASVCg=="},
        {"int": "zz"},
        {"int": 5},
        {"float": "1e5"},
        {"complex": [1]},
        {"complex": ["a", 1]},
        {"dict": [1]},
        {"dict": [[1]]},
        {"dict": [[{"list": []}, 1]]},
        {"array": ["object", [1], "AAAA"]},
        {"array": ["float64", [2], "AAAAAAAA8D8="]},
        {"array": ["float64", [1], "AAAAAAAA8D8AAAAAAADwPw=="]},
        {"array": ["float64", [-1], ""]},
        {"array": ["float64", [True], "AAAAAAAA8D8="]},
        {"array": ["bool", [1], "Ag=="]},
        {"array": ["int8", [1], "not base 64"]},
        {"array": ["int8", [1] * 33, "AA=="]},
        {"array": [["int8"], [1], "AA=="]},
        {"array": 3},
        {"array": ["int8", [1]]},
        {"array": ["int8", None, "AA=="]},
        {"tensor": ["int8", [1], 7]},
        {"list": "abc"},
        {"list": [{"unknown": []}]},
    ],
)
def test_a_forged_value_is_refused(forged):
    with pytest.raises(NotPlain):
        decode(forged)


def test_too_many_or_too_deep_values_are_refused_on_this_side_too():
    with pytest.raises(NotPlain):
        decode({"list": [None] * (MOST_ITEMS + 1)})
    deep = None
    for _ in range(DEEPEST + 2):
        deep = {"list": [deep]}
    with pytest.raises(NotPlain):
        decode(deep)
    with pytest.raises(NotPlain):
        decode("x" * (64 * MOST_ITEMS + 64))
