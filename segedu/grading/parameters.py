"""Numbers of each student's own: what the parameters of an assignment are worth for whom.

A code cell tagged `parameters` has the defaults, as papermill wants it. An assignment that was
released with a roster is graded with each student's own values, whatever the student's cell says;
one that was released without is graded with the defaults, for they are all that students had.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

TAG = "parameters"


def seed_of(assignment: str, student: str) -> int:
    """A student's seed in an assignment: 31 bits that look random and are always the same.

    Example:
        >>> seed_of("unet", "ana") == seed_of("unet", "ana") != seed_of("unet", "bo")
        True
    """
    mixed = hashlib.sha256(f"{assignment}\0{student}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(mixed[:4], "big") >> 1


def own_values(name: str, defaults: Mapping[str, Any], student: str) -> dict[str, Any]:
    """An assignment's parameters with a student's own `seed` and `student`."""
    own = {"student": student, "seed": seed_of(name, student)}
    return {parameter: own.get(parameter, value) for parameter, value in defaults.items()}


def values_for(secret: Mapping[str, Any], student: str) -> dict[str, Any]:
    """The parameters that a key's student is graded with."""
    defaults = secret.get("parameters") or {}
    if not secret.get("own_numbers"):
        return dict(defaults)
    return own_values(secret["name"], defaults, student)


def as_code(values: Mapping[str, Any]) -> str:
    """Values as the source of a cell.

    Example:
        >>> print(as_code({"seed": 3, "student": "ana"}))
        seed = 3
        student = 'ana'
    """
    return "\n".join(f"{name} = {value!r}" for name, value in values.items())
