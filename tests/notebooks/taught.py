"""What a chapter defines, without running the rest of it."""

import ast
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace

import jupytext

SOURCES = Path(__file__).parents[2] / "course" / "source"
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
OWN_WORK = {"exercise", "exercise-check", "solution"}


def taught(name: str, *, also: Collection[str] = ()) -> SimpleNamespace:
    """The imports, functions and classes of a chapter outside its exercises.

    Args:
        name: Of the chapter, such as "06_cross_entropy".
        also: Variables that they need: the assignments to these are run as well.
    """
    cells = jupytext.read(SOURCES / f"{name}.py", fmt="py:percent").cells
    code = "\n".join(
        cell.source
        for cell in cells
        if cell.cell_type == "code" and not OWN_WORK & set(cell.metadata.get("tags", []))
    )
    body = [
        statement
        for statement in ast.parse(code).body
        if isinstance(statement, DEFINITIONS) or assigned(statement) & set(also)
    ]
    names: dict[str, object] = {}
    exec(compile(ast.Module(body, type_ignores=[]), f"{name}.py", "exec"), names)
    return SimpleNamespace(**{k: v for k, v in names.items() if not k.startswith("__")})


def assigned(statement: ast.stmt) -> set[str]:
    """The variables that a statement gives a value."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {
        part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)
    }
