"""`check`: say what should hold, show that it does, or stop.

Every number in a chapter's prose comes from a cell that ends in one of these three.
"""

from typing import Any

import numpy as np


class CheckFailed(AssertionError):  # noqa: N818 - what happened, as a sentence says it
    """A claim that does not hold."""


def check(claim: str, got: Any, want: Any, tol: float = 0.0) -> None:
    """Show that `got` is `want`, or stop.

    Args:
        claim: What a sentence of the chapter says.
        got: A number, bool, string, or an array or tensor of numbers.
        want: The same, or one number for all of an array's entries.
        tol: Largest absolute difference allowed. `nan` equals `nan`.

    Raises:
        CheckFailed: If the two differ by more than `tol`, in any entry, or in shape.

    Example:
        >>> check("a third", 1 / 3, 0.333, tol=1e-3)
        ✓ a third: 0.3333
    """
    if isinstance(want, str):
        return _report(claim, got == want, repr(got), f"expected {want!r}")
    found, expected = _array(got), _array(want)
    if expected.ndim and found.shape != expected.shape:
        return _report(claim, False, f"shape {found.shape}", f"expected {expected.shape}")  # noqa: FBT003
    worst = _worst_difference(found, expected)
    return _report(
        claim, worst <= tol, _short(found), f"expected {_short(expected)} within {tol:g}"
    )


def check_at_least(claim: str, got: Any, least: float) -> None:
    """Show that `got`, and every entry of it, is `least` or more, or stop."""
    found = _array(got)
    _report(claim, bool((found >= least).all()), _short(found), f"expected at least {least:g}")


def check_at_most(claim: str, got: Any, most: float) -> None:
    """Show that `got`, and every entry of it, is `most` or less, or stop."""
    found = _array(got)
    _report(claim, bool((found <= most).all()), _short(found), f"expected at most {most:g}")


def _report(claim: str, holds: bool, got: str, expectation: str) -> None:  # noqa: FBT001
    if not holds:
        raise CheckFailed(f"✗ {claim}: {got} ({expectation})")
    print(f"✓ {claim}: {got}")


def _array(value: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """A tensor, array, list or number as an array; bfloat16 and gradients are no obstacle."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.double().numpy() if value.is_floating_point() else value.numpy()
    return np.asarray(value)


def _worst_difference(
    found: np.ndarray[Any, np.dtype[Any]], expected: np.ndarray[Any, np.dtype[Any]]
) -> float:
    """Largest absolute difference; 0 between equal infinities and between nans."""
    a, b = np.broadcast_arrays(found.astype(np.float64), expected.astype(np.float64))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b))
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))


def _short(value: np.ndarray[Any, np.dtype[Any]]) -> str:
    """A number with four digits; up to six entries of an array, or its shape and range."""
    if not value.ndim and value.dtype.kind in "bUS":
        return str(value.item())
    if not value.ndim:
        return f"{value.item():.4g}" if value.dtype.kind == "f" else str(value.item())
    if value.size <= 6:
        return np.array2string(value, precision=4, separator=", ").replace("\n", "")
    low, high = value.astype(np.float64).min(), value.astype(np.float64).max()
    return f"{'x'.join(map(str, value.shape))} entries in [{low:.4g}, {high:.4g}]"
