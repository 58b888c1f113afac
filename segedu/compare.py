"""Compare two values of any kind, and say in few words how they differ."""

from collections.abc import Iterable
from typing import Any

import numpy as np

SMALL = 12  # an array with more entries is told by its shape and by where it first differs
LONG = 60  # characters, after which a text is cut

Array = np.ndarray[Any, np.dtype[Any]]
Texts = tuple[str, str]


def difference(got: Any, want: Any, tolerance: float) -> Texts | None:
    """How `got` and `want` differ, as a short text for each; None if they do not.

    Numbers, bools, strings, arrays and tensors are compared, and lists, tuples and dicts of them;
    a list is as good as a tuple, a NumPy number as good as Python's. Other objects are asked by
    `==`.

    Args:
        got: What is judged.
        want: What it should be.
        tolerance: Largest difference between numbers: absolute up to 1, relative beyond. nan equals
            nan.

    Example:
        >>> difference([1, 2.0], (1, 2.5), tolerance=1e-6)
        ('[1, 2]', '(1, 2.5)')
    """
    kind = kind_of(want)
    if kind_of(got) != kind:
        return _titled(got), _titled(want)
    if kind in {"tensor", "array", "number"}:
        return _array_difference(got, want, tolerance)
    if kind in {"sequence", "dict"}:
        return _entry_difference(got, want, tolerance)
    return None if _equal(got, want) else _told_apart(got, want)


def kind_of(value: Any) -> str:
    """What a value is compared as, in one word; "object" for one that is asked by `==`."""
    if hasattr(value, "detach"):
        return "tensor"
    if isinstance(value, np.ndarray) and value.ndim:
        return "array"
    kinds: list[tuple[str, Any]] = [
        ("None", type(None)),
        ("bool", (bool, np.bool_)),
        ("number", (int, float, complex, np.number, np.ndarray)),
        ("string", str),
        ("sequence", (list, tuple)),
        ("dict", dict),
    ]
    return next((kind for kind, types in kinds if isinstance(value, types)), "object")


def short(value: Any, digits: int = 4) -> str:
    """A value in few characters: numbers with `digits` digits, a large array by its shape.

    Example:
        >>> short((1 / 3, np.array([1, 2]), "a"))
        "(0.3333, array([1, 2]), 'a')"
        >>> short(np.zeros((9, 9)))
        'array of shape 9x9'
    """
    kind = kind_of(value)
    if kind in {"tensor", "array"}:
        array = _array(value)
        entries = f"({short(array.tolist(), digits)})"
        return f"{kind}{entries}" if array.size <= SMALL else f"{kind} of shape {_shape(array)}"
    text = str(value) if kind == "bool" else repr(value)
    if kind == "sequence":
        text = ", ".join(short(entry, digits) for entry in value)
        text = f"[{text}]" if isinstance(value, list) else f"({text})"
    elif kind == "dict":
        text = f"{{{', '.join(f'{k!r}: {short(v, digits)}' for k, v in value.items())}}}"
    elif kind == "number" and not isinstance(value, int):
        text = f"{np.asarray(value).item():.{digits}g}"
    elif kind == "object" and callable(value):
        text = name_of(value)
    return text if len(text) <= LONG * digits / 4 else f"{text[: LONG - 3]}..."


def name_of(function: Any) -> str:
    """A function's name as a reader would call it."""
    name: str = getattr(function, "__name__", type(function).__name__)
    return "answer" if name == "<lambda>" else name


def _equal(got: Any, want: Any) -> bool:
    """Whether two strings or objects are equal; False where they cannot say."""
    try:
        return bool(got == want)
    except (TypeError, ValueError, RuntimeError):
        return False


def _entry_difference(got: Any, want: Any, tolerance: float) -> Texts | None:
    """The first entry that differs: both values in full where they are short, else by its key."""
    is_dict = isinstance(want, dict)
    if len(got) != len(want) and not is_dict:
        return f"{len(got)} entries, {short(got)}", f"{len(want)}, {short(want)}"
    if is_dict and set(got) != set(want):
        return f"the keys {short(list(got))}", short(list(want))
    keys: Iterable[Any] = want if is_dict else range(len(want))
    for key in keys:
        found = difference(got[key], want[key], tolerance)
        if found:
            full = _told_apart(got, want)
            is_clear = full[0] != full[1] and max(map(len, full)) < LONG
            return full if is_clear else (f"{found[0]} in entry {key!r}", found[1])
    return None


def _array_difference(got: Any, want: Any, tolerance: float) -> Texts | None:
    """The difference of numbers, arrays or tensors: in shape, in kind of number, in an entry."""
    a, b = _array(got), _array(want)
    if a.shape != b.shape:
        return f"shape {_shape(a)}", f"shape {_shape(b)}"
    if kind_of(want) != "number" and _number_kind(a) != _number_kind(b):
        return f"{a.dtype} values", f"{b.dtype}"
    differs = ~_close(a, b, tolerance)
    if not differs.any():
        return None
    if a.size <= SMALL:
        return _told_apart(got, want)
    place = tuple(int(i) for i in np.argwhere(differs)[0])
    x, y = _told_apart(a[place], b[place])
    return f"{x} at {list(place)} of shape {_shape(a)}", y


def _close(a: Array, b: Array, tolerance: float) -> Array:
    """Entry by entry, whether two arrays are equal within `tolerance`."""
    kinds = a.dtype.kind + b.dtype.kind
    if not set(kinds) <= set("fc") and not (set(kinds) <= set("biufc") and tolerance):
        return np.asarray(a == b)
    wide = np.complex128 if "c" in kinds else np.float64
    a, b = a.astype(wide), b.astype(wide)
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(a - b) <= tolerance * np.maximum(1, np.abs(b))
    either_infinite = np.isinf(a) | np.isinf(b)
    same = np.where(either_infinite, a == b, near) | (np.isnan(a) & np.isnan(b))
    return np.asarray(same)


def _array(value: Any) -> Array:
    """A number, array or tensor as an array; gradients and bfloat16 are no obstacle."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach().cpu()
    return np.asarray(value.float() if str(value.dtype) == "torch.bfloat16" else value)


def _number_kind(value: Array) -> str:
    """Which numbers go for one another: of any width, with or without sign."""
    return value.dtype.kind.replace("u", "i")


def _shape(value: Array) -> str:
    return "x".join(map(str, value.shape)) or "() (one number)"


def _told_apart(got: Any, want: Any) -> Texts:
    """Both as short texts, with as many digits as it takes to see that they differ."""
    texts = (short(got), short(want))
    for digits in (7, 17):
        if texts[0] == texts[1]:
            texts = (short(got, digits), short(want, digits))
    return texts


def _titled(value: Any) -> str:
    """A value with its kind, for one of the wrong kind."""
    kind = kind_of(value)
    if kind in {"None", "tensor", "array"}:
        return short(value)
    name = type(value).__name__ if kind in {"object", "sequence"} else kind
    return f"the {name} {short(value)}"
