"""Which file belongs to which split, and what to say when there is none."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from segedu.errors import InputError


def held_out(name: str, *, one_in: int) -> bool:
    """Whether `name` is among the one in `one_in` names kept for validation.

    It depends on the name alone, so a file never changes sides when others are missing.

    Example:
        >>> [held_out(name, one_in=3) for name in ("Abyssinian_18", "pug_9", "Birman_102")]
        [False, False, True]
    """
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % one_in == 0


def need_split(split: str, splits: Sequence[str], title: str) -> None:
    """Refuse a split that the set does not have.

    Raises:
        InputError: If `split` is not one of `splits`.
    """
    if split not in splits:
        raise InputError(f"{title} has no split {split!r}; choose one of: {', '.join(splits)}")


def need_files(files: Sequence[object], root: Path, *, name: str, split: str, layout: str) -> None:
    """Refuse a folder in which no file of the wanted split was found.

    Args:
        files: What was found.
        root: The folder that was searched.
        name: The set's name in the catalogue.
        split: The split that was wanted.
        layout: What was looked for, as a pattern below `root`.

    Raises:
        InputError: If `files` is empty.
    """
    if not files:
        raise InputError(
            f"{root}: holds no {layout} for the split {split!r}; `segedu data get {name}` gets the "
            f"whole set, or set SEGEDU_DATA to the folder that holds {name}/"
        )
