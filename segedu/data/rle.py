"""Run-length encoding of masks as COCO stores it; chapter 02 derives it.

The pixels are read column by column, each from top to bottom. The counts are the lengths of the
runs of equal pixels, of background first: a mask that begins inside the object begins with a 0. The
string packs the counts into printable characters, five bits each.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Integer, UInt8

from segedu.errors import InputError

FIRST, LAST = ord("0"), ord("o")  # the 64 characters that a string may hold
LONGEST = 7  # characters of one number: 35 bits, for the difference of two counts of 32

Counts = Int64[np.ndarray, " n"]


def encode(mask: Bool[np.ndarray, "h w"] | UInt8[np.ndarray, "h w"]) -> Counts:
    """The lengths of the mask's runs: background, object, background, ... down its columns.

    Args:
        mask: True, or anything but 0, inside the object. Column-major arrays need no copy.

    Example:
        >>> encode(np.array([[False, True], [False, True], [True, True]])).tolist()
        [2, 4]
    """
    pixels = mask.ravel(order="F") != 0
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    first = [0, 0] if pixels[:1].any() else [0]
    bounds = np.concatenate([first, changes, [pixels.size]])
    return bounds[1:] - bounds[:-1]


def decode(
    counts: Sequence[int] | Integer[np.ndarray, " n"], height: int, width: int
) -> Bool[np.ndarray, "{height} {width}"]:
    """The mask of `height` x `width` pixels whose runs have these lengths, in column-major order.

    Raises:
        InputError: If a count is no whole number or negative, or they do not sum to the size.
    """
    lengths = _checked(counts)
    if lengths.sum() != height * width:
        raise InputError(
            f"run lengths sum to {lengths.sum()}; expected {height * width} for {height} x {width} "
            "pixels; check the size, which is height first, and that the counts are whole"
        )
    is_object = np.zeros(len(lengths), dtype=np.bool_)
    is_object[1::2] = True
    return np.repeat(is_object, lengths).reshape(width, height).T


def to_string(counts: Sequence[int] | Integer[np.ndarray, " n"]) -> str:
    """The counts as COCO's compressed string; each from the fourth on as a change.

    Raises:
        InputError: If a count is no whole number, or negative.

    Example:
        >>> to_string([2, 4, 100, 4])
        '24T30'
    """
    lengths = _checked(counts)
    numbers = lengths.copy()
    numbers[3:] -= lengths[1:-2]
    magnitude = numbers ^ (numbers >> 63)  # as many bits as the number has beside its sign
    most = int(magnitude.max(initial=0)).bit_length() // 5 + 1  # characters of the longest number
    needed = np.ones(len(numbers), dtype=np.int64)
    for place in range(1, most):
        needed += magnitude >> (5 * place - 1) > 0
    ends = needed.cumsum()
    starts = ends - needed
    characters = np.empty(int(ends[-1]) if ends.size else 0, dtype=np.uint8)
    while starts.size:  # the first character of each number, then the second of those that go on
        goes_on = needed > 1
        characters[starts] = (numbers & 31) + 32 * goes_on + FIRST
        starts, numbers, needed = starts[goes_on] + 1, numbers[goes_on] >> 5, needed[goes_on] - 1
    return characters.tobytes().decode("ascii")


def from_string(text: str | bytes) -> Counts:
    """The counts that COCO's compressed string stands for.

    Raises:
        InputError: If it has a character that such strings never have, ends within a number, or
            gives a negative count.
    """
    numbers = _numbers(_codes(text))
    numbers[1::2].cumsum(out=numbers[1::2])
    numbers[2::2].cumsum(out=numbers[2::2])
    return _checked(numbers)


def from_strings(texts: Sequence[str | bytes]) -> tuple[Counts, Int64[np.ndarray, " s"]]:
    """The counts of many strings after one another, and how many counts each string has.

    As `from_string` of each, in one go: many short strings are read about ten times as quickly.

    Raises:
        InputError: As `from_string` raises it.

    Example:
        >>> counts, lengths = from_strings(["24T30", "03"])
        >>> counts.tolist(), lengths.tolist()
        ([2, 4, 100, 4, 0, 3], [4, 2])
    """
    octets = [text.encode() if isinstance(text, str) else text for text in texts]
    codes = _codes(b"".join(octets))
    ends = np.cumsum([len(octet) for octet in octets], dtype=np.int64)
    if codes.size and (codes[ends[ends > 0] - 1] >= 32).any():
        for octet in octets:
            from_string(octet)  # says which is cut off
    numbers = _numbers(codes)
    until = np.concatenate([[0], (codes < 32).cumsum()])[ends]
    lengths = np.diff(until, prepend=0)
    place = np.arange(len(numbers)) - np.repeat(until - lengths, lengths)
    for parity, count in ((1, lengths // 2), (0, np.maximum(lengths - 1, 0) // 2)):
        at = np.flatnonzero((place > 0) & (place % 2 == parity))
        total = np.concatenate([[0], numbers[at].cumsum()])
        numbers[at] = total[1:] - np.repeat(total[count.cumsum() - count], count)
    return _checked(numbers), lengths


def _numbers(codes: UInt8[np.ndarray, " k"]) -> Counts:
    """The numbers that characters of six bits stand for, as they are stored: some are changes."""
    is_last = codes < 32
    if codes.size and not is_last[-1]:
        raise InputError(
            f"RLE string of {codes.size} characters ends within a number: "
            f"{(codes[-8:] + FIRST).tobytes().decode()!r}; it was cut off; read it again from its "
            "source"
        )
    ends = np.flatnonzero(is_last)
    starts = np.empty_like(ends)
    starts[:1], starts[1:] = 0, ends[:-1] + 1
    lengths = ends - starts + 1
    longest = int(lengths.max(initial=0))
    if longest > LONGEST:
        raise InputError(
            f"RLE string has a number of {longest} characters; expected at most {LONGEST}; "
            "this is no RLE string of COCO's"
        )
    numbers = (codes[starts] & 31).astype(np.int64)
    for place in range(1, longest):
        there = np.flatnonzero(lengths > place)
        numbers[there] |= (codes[starts[there] + place] & 31).astype(np.int64) << 5 * place
    beyond = 64 - 5 * lengths
    return numbers << beyond >> beyond  # a number's highest bit is its sign


def _checked(counts: Any) -> Counts:
    """The counts as an array, unless one of them cannot be a length."""
    lengths = np.asarray(counts)
    if lengths.size == 0:
        return np.zeros(0, dtype=np.int64)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise InputError(
            f"run lengths are of kind {lengths.dtype} and shape {lengths.shape}; expected a list "
            "of whole numbers; decode a string with `from_string` first"
        )
    if lengths.min() < 0:
        place = int(lengths.argmin())
        raise InputError(
            f"run length {place} is {lengths[place]}; expected 0 or more; the counts or their "
            "string were damaged; read them again from their source"
        )
    return lengths.astype(np.int64, copy=False)


def _codes(text: str | bytes) -> UInt8[np.ndarray, " k"]:
    """The six bits of each character, 0..63, if all are characters that such a string may hold."""
    octets = np.frombuffer(text.encode() if isinstance(text, str) else text, dtype=np.uint8)
    if octets.size and (octets.min() < FIRST or octets.max() > LAST):
        place = int(((octets < FIRST) | (octets > LAST)).argmax())
        raise InputError(
            f"RLE string has the byte {octets[place : place + 1].tobytes()!r} at place {place}; "
            f"expected characters from {chr(FIRST)!r} to {chr(LAST)!r}; undo what escaped or "
            "changed it"
        )
    return octets - np.uint8(FIRST)
