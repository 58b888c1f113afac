"""Find chapters in a folder by their number or name."""

import re
from collections.abc import Sequence
from pathlib import Path

from segedu.errors import InputError


def find_chapters(folder: Path, suffix: str, chosen: Sequence[str] = ()) -> list[Path]:
    """The chapters in `folder` whose file ends in `suffix`, in the course's order.

    Args:
        folder: Where they are.
        suffix: ".py" for sources, ".ipynb" for notebooks.
        chosen: Numbers ("1", "01") or names ("01_first_segmentation"); none means all.

    Raises:
        InputError: If there is no chapter, or one of `chosen` is none of them.
    """
    known = {path.stem: path for path in sorted(folder.glob(f"[0-9][0-9]_*{suffix}"))}
    if not known:
        raise InputError(f"{folder} has no chapter (such as 01_first_segmentation{suffix})")
    wanted = {chapter_name(name, list(known)) for name in chosen} or set(known)
    return [path for name, path in known.items() if name in wanted]


def chapter_name(text: str, known: Sequence[str]) -> str:
    """The one of the `known` names that `text` is, or is the number of.

    Raises:
        InputError: If it is none of them.

    Example:
        >>> chapter_name("1", ["01_first_segmentation", "10_unet"])
        '01_first_segmentation'
    """
    for name in known:
        if text == name or (re.fullmatch(r"\d+", text) and int(text) == int(name[:2])):
            return name
    raise InputError(f"no chapter {text!r}; there are {', '.join(known)}")
