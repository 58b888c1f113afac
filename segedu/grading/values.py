"""Values that cross between a sandbox and the tests: plain, bounded, and written as JSON.

None, bool, numbers, strings, lists, tuples, dicts, sets and numeric arrays pass; tensors pass as
arrays and become tensors where torch is imported already; what has items to go through, such as a
range or a generator, passes as a list. Nothing is unpickled and nothing evaluated, so what comes
back has no methods but its type's own. The module imports the standard library and NumPy only, for
it also runs inside the sandbox.
"""

import base64
import binascii
import math
import sys
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

LARGEST = 16 * 2**20  # bytes of an array, and characters of all text
MOST_ITEMS = 200_000
DEEPEST = 16
LONGEST_NUMBER = 2000  # hexadecimal digits of a whole one
DTYPES = frozenset(
    ["bool", "complex64", "complex128"]
    + [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
    + [f"float{bits}" for bits in (16, 32, 64)]
)


class NotPlain(ValueError):  # noqa: N818 - what the value is
    """A value that may not cross."""


def encode(value: Any) -> Any:
    """The value as what `json.dumps` takes.

    Raises:
        NotPlain: If it is of another kind, too large or too deep.
    """
    return _Encoder().encode(value, 0)


def decode(given: Any) -> Any:
    """The value that `encode` was given.

    Raises:
        NotPlain: If `given` is not what `encode` makes, or too large: it may be forged.
    """
    return _Decoder().decode(given, 0)


class _Bounded:
    """Counts what a value holds."""

    def __init__(self) -> None:
        self.items = 0

    def count(self, depth: int, size: int = 1) -> None:
        self.items += size
        if depth > DEEPEST or self.items > MOST_ITEMS:
            raise NotPlain(f"holds more than {MOST_ITEMS} values, or {DEEPEST} within one another")


class _Encoder(_Bounded):
    def encode(self, value: Any, depth: int) -> Any:  # noqa: PLR0911 - one line a kind
        self.count(depth)
        value = _plainer(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            self.count(depth, len(value) // 64)
            return str.__str__(value)
        array = _as_array(value)
        if array is not None:
            return _array_out(array, _kind(value))
        if isinstance(value, int):
            return _whole_out(int.__index__(value))
        if isinstance(value, float):
            number = float.__float__(value)
            return number if math.isfinite(number) else {"float": str(number)}
        if isinstance(value, complex):
            return {"complex": [self.encode(x, depth + 1) for x in (value.real, value.imag)]}
        for kind, name in ((list, "list"), (tuple, "tuple"), (set | frozenset, "set")):
            if isinstance(value, kind):
                return {name: [self.encode(part, depth + 1) for part in value]}
        if isinstance(value, dict):
            pairs = [[self.encode(part, depth + 1) for part in pair] for pair in value.items()]
            return {"dict": pairs}
        raise NotPlain(f"is a {type(value).__name__}, which is no plain value")


class _Decoder(_Bounded):
    def decode(self, given: Any, depth: int) -> Any:  # noqa: PLR0911 - one line a kind
        self.count(depth)
        if given is None or isinstance(given, bool | int | float):
            return given
        if isinstance(given, str):
            self.count(depth, len(given) // 64)
            return given
        if not isinstance(given, dict) or len(given) != 1:
            raise NotPlain("is not in the form of a value")
        kind, content = next(iter(given.items()))
        if kind == "int" and isinstance(content, str) and len(content) < LONGEST_NUMBER:
            return _number(int, content, 16)
        if kind == "float" and content in ("nan", "inf", "-inf"):
            return float(content)
        if kind in ("array", "tensor", "scalar"):
            return _array_in(content, kind)
        if not isinstance(content, list):
            raise NotPlain(f"has the unknown kind {str(kind)[:20]!r}")
        parts = [self.decode(part, depth + 1) for part in content] if kind != "dict" else content
        if kind == "list":
            return parts
        if kind in ("tuple", "set"):
            return tuple(parts) if kind == "tuple" else _set(parts)
        if kind == "complex" and len(parts) == 2 and all(isinstance(x, int | float) for x in parts):
            return complex(*parts)
        if kind == "dict":
            return self._pairs(content, depth)
        raise NotPlain(f"has the unknown kind {str(kind)[:20]!r}")

    def _pairs(self, content: list[Any], depth: int) -> dict[Any, Any]:
        found = {}
        for pair in content:
            if not isinstance(pair, list) or len(pair) != 2:
                raise NotPlain("has a dict that is not made of pairs")
            name, value = (self.decode(part, depth + 1) for part in pair)
            try:
                found[name] = value
            except TypeError as error:
                raise NotPlain("has a dict with keys that cannot be keys") from error
        return found


def _plainer(value: Any) -> Any:
    """What a value that is nearly plain stands for: its items, once gone through, or a number."""
    if isinstance(value, Iterator | range | KeysView | ValuesView | ItemsView):
        return list(islice(value, MOST_ITEMS + 1))
    return float(value) if isinstance(value, Fraction | Decimal) else value


def _whole_out(number: int) -> Any:
    if not abs(number) >> 52:
        return number
    if number.bit_length() >= 4 * (LONGEST_NUMBER - 4):
        raise NotPlain(f"is a number of {number.bit_length()} bits, which is too large")
    return {"int": hex(number)}


def _set(parts: list[Any]) -> set[Any]:
    try:
        return set(parts)
    except TypeError as error:
        raise NotPlain("has a set of what cannot be in one") from error


def _number(make: Any, *content: Any) -> Any:
    try:
        return make(*content)
    except (ValueError, OverflowError, TypeError) as error:
        raise NotPlain("has a number that is none") from error


def _kind(value: Any) -> str:
    if hasattr(value, "detach"):
        return "tensor"
    return "scalar" if isinstance(value, np.generic) else "array"


def _as_array(value: Any) -> Array | None:
    """An array of what has numbers in an array; None of anything else."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    if hasattr(value, "detach") and hasattr(value, "dtype"):
        value = value.detach().cpu()
        return np.asarray(value.float() if str(value.dtype) == "torch.bfloat16" else value)
    return None


def _array_out(array: Array, kind: str) -> Any:
    if array.dtype.kind in "fc" and array.dtype.name not in DTYPES:  # more than 64 bits a number
        array = array.astype(np.float64 if array.dtype.kind == "f" else np.complex128)
    if array.dtype.name not in DTYPES:
        raise NotPlain(f"is an array of {array.dtype.name}; expected numbers")
    if array.nbytes > LARGEST:
        raise NotPlain(f"is an array of {array.nbytes} bytes; at most {LARGEST} can be looked at")
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode()
    return {kind: [array.dtype.name, list(array.shape), data]}


def _array_in(content: Any, kind: str) -> Any:
    try:
        name, shape, data = content
        if name not in DTYPES or not all(type(n) is int and n >= 0 for n in shape):
            raise NotPlain("has an array of no numbers")
        if len(shape) > 32 or len(data) > 2 * LARGEST:
            raise NotPlain("has too large an array")
        raw = base64.b64decode(data, validate=True)
        dtype = np.dtype(name).newbyteorder("<")
        if math.prod(shape) * dtype.itemsize != len(raw):
            raise NotPlain("has an array whose shape is not that of its data")
        if name == "bool" and raw.strip(b"\x00\x01"):
            raise NotPlain("has truth values that are neither true nor false")
    except (TypeError, ValueError, binascii.Error) as error:
        raise NotPlain(str(error) or "has an array that is none") from error
    array = np.frombuffer(raw, dtype).reshape(shape).astype(name)
    torch = sys.modules.get("torch")
    if kind == "tensor" and torch is not None and name not in ("uint16", "uint32", "uint64"):
        return torch.from_numpy(array)
    return array[()] if kind == "scalar" else array
