"""While tests run, nothing is close to something: an empty answer is wrong where one is expected.

NumPy and PyTorch broadcast, so an empty array of enough axes is "close" to any other.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import numpy as np

PAIR = ("a", "b", "actual", "desired", "input", "other")  # the libraries' names for the two


@contextmanager
def nothing_is_close_to_something() -> Iterator[None]:
    """For a while, `allclose`, `isclose` and `assert_allclose` tell empty values from others."""
    with ExitStack() as stack:
        for module, names in (
            (np, ("allclose", "isclose")),
            (np.testing, ("assert_allclose",)),
            (sys.modules.get("torch"), ("allclose", "isclose")),
        ):
            for name in names if module is not None else ():
                stack.enter_context(patch.object(module, name, _strict(getattr(module, name))))
        yield


def _strict(compare: Callable[..., Any]) -> Callable[..., Any]:
    """The comparison, which broadcasts nothing empty."""

    @wraps(compare)
    def strict(*given: Any, **named: Any) -> Any:
        pair = [*given, *(named[name] for name in PAIR if name in named)][:2]
        if len({0 in np.shape(value) for value in pair}) == 1:
            return compare(*given, **named)
        if compare.__name__.startswith("assert"):
            raise AssertionError("one of the two is empty")
        return np.False_

    return strict
