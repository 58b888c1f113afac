import math

import numpy as np
import pytest
import torch

from segedu.check import CheckFailed, check, check_at_least, check_at_most


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (5, 5),
        (True, True),
        ("disc", "disc"),
        (float("nan"), float("nan")),
        (math.inf, math.inf),
        (torch.tensor([1.0, 2.0], dtype=torch.bfloat16), [1, 2]),
        (torch.ones(2, 2, requires_grad=True), 1),
        (np.float32(0.5), 0.5),
        ([], []),
    ],
)
def test_a_true_claim_prints_one_line_with_a_tick(got, want, capsys):
    check("it holds", got, want)
    out = capsys.readouterr().out
    assert out.startswith("✓ it holds: ")
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    ("got", "want", "tol"),
    [
        (5, 6, 0.5),
        (True, False, 0),
        ("disc", "ring", 0),
        (float("nan"), 1.0, 10),
        (1.0, float("nan"), 10),
        (math.inf, -math.inf, 10),
        (math.inf, 1.0, 10),
        ([1, 2, 3.2], [1, 2, 3], 0.1),
        ([1, 2], [1, 2, 3], 10),
        ([1, 1], [[1, 1]], 10),
    ],
)
def test_a_false_claim_stops(got, want, tol):
    with pytest.raises(CheckFailed, match=r"✗ it holds: .+ \(expected .+\)"):
        check("it holds", got, want, tol=tol)


def test_the_tolerance_is_the_largest_difference_allowed():
    check("within", 1.25, 1.0, tol=0.25)
    with pytest.raises(CheckFailed):
        check("beyond", 1.25, 1.0, tol=0.24)


def test_bounds_hold_for_every_entry():
    check_at_least("all", [0.5, 0.7], 0.5)
    check_at_most("all", [0.5, 0.7], 0.7)
    with pytest.raises(CheckFailed, match=r"at least 0\.6"):
        check_at_least("one is less", [0.5, 0.7], 0.6)
    with pytest.raises(CheckFailed, match=r"at most 0\.6"):
        check_at_most("one is more", [0.5, 0.7], 0.6)
    with pytest.raises(CheckFailed):
        check_at_least("nan is no score", float("nan"), 0)


def test_the_line_shows_the_value(capsys):
    check("pi", math.pi, 3.14, tol=0.01)
    check("a few", torch.tensor([0.25, 0.5]), [0.25, 0.5])
    check("many", torch.arange(10.0), torch.arange(10.0))
    check("all", torch.ones(9, dtype=torch.bool), 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "✓ pi: 3.142",
        "✓ a few: [0.25, 0.5 ]",
        "✓ many: 10 entries in [0, 9]",
        "✓ all: 9 entries in [1, 1]",
    ]
