import numpy as np
import pytest
import torch

from segedu.grading.comparing import nothing_is_close_to_something

EMPTY = [np.zeros((0, 1, 1)), np.zeros(0), [], [[]], ([],)]
FULL = [17.5, [2.0], np.ones((2, 2))]


@pytest.mark.parametrize("full", FULL, ids=str)
@pytest.mark.parametrize("empty", EMPTY, ids=str)
def test_what_is_empty_is_close_to_what_is_empty_only(empty, full):
    with nothing_is_close_to_something():
        for pair in ((empty, full), (full, empty)):
            assert not np.allclose(*pair)
            assert not np.all(np.isclose(*pair))
            with pytest.raises(AssertionError):
                np.testing.assert_allclose(*pair)
        assert not np.allclose(a=empty, b=full, rtol=0)
        assert not np.allclose(empty, b=full)
        assert np.allclose(empty, empty)
        assert np.allclose(full, full, rtol=0)
    assert np.allclose(np.zeros(0), 17.5)


def test_the_same_is_so_of_tensors():
    with nothing_is_close_to_something():
        assert not torch.allclose(torch.zeros(0, 1, 1), torch.ones(2, 2))
        assert torch.allclose(torch.zeros(0, 1, 1), torch.zeros(0, 1, 1))
        assert torch.allclose(torch.ones(2), torch.ones(2) + 1e-9, atol=1e-3)
    assert torch.allclose(torch.zeros(0, 1, 1), torch.ones(2, 2))
