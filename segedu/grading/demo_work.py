"""Work of many qualities, made from a key: right, wrong as students are, broken, and hostile.

Nothing is run here; the hostile ones do what they do when they are graded.
"""

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nbformat import NotebookNode

from segedu.errors import InputError
from segedu.grading.assignment import defined_names
from segedu.grading.keys import answered
from segedu.grading.selftest import replaced
from segedu.notebooks.document import node, notebook_text

QUALITIES = (
    "full",
    "full with text",
    "mutant 1",
    "script",
    "half",
    "untouched",
    "crash",
    "forged",
    "late",
    "nothing",
    "mutant 2",
    "mutant 3",
    "mutant 4",
    "mutant 5",
    "mutant 6",
    "mutant 7",
    "syntax error",
    "endless",
    "two notebooks",
    "empty",
    "noisy",
    "odd name",
    "zipped",
    "full with text",
    "mutant 1",
    "mutant 3",
    "first",
    "late mutant",
    "no notebook",
    "half with text",
)
GOOD_TEXT = (
    "Every part counts the same in a mean of means, however many pixels it has. So a part in which "
    "a class is a speck pulls the number down, and how the parts were cut changes it. I would add "
    "the counts of the whole set first, and say that I did."
)
SHORT_TEXT = "It depends on the batch size. I would use a larger one."
HOSTILE_TEXT = (
    "<script>document.title = 'owned'</script> <img src=x onerror=\"document.title = 'owned'\">\n\n"
    "[a link](javascript:document.title='owned') ![a picture](https://example.org/counted.png)"
)
HOSTILE_CELL = """\
from IPython.display import HTML, SVG, display

display(HTML("<script>document.title = 'owned'</script>"))
display(SVG("<svg xmlns='http://www.w3.org/2000/svg' onload=\\"document.title='owned'\\"/>"))
print("<script>document.title = 'owned'</script>")"""
ALWAYS_EQUAL = """\


class Anything:
    def __eq__(self, other):
        return True

    def __array__(self, *_, **__):
        return self


def {name}(*_, **__):
    return Anything()"""
EARLY, LATE, LATER = -20.0, 5.0, 50.0  # hours from the due time


@dataclass(frozen=True)
class HandedIn:
    """What one student handed in.

    Attributes:
        files: Contents by name; none if nothing was handed in.
        hours: When, counted from the due time.
    """

    files: dict[str, bytes]
    hours: float = EARLY


@dataclass
class _Draft:
    """An assignment's answers, to be spoilt.

    Attributes:
        secret: The key.
        answers: By grade_id; at first all are right, and texts are as released.
        cells: More cells at the end.
    """

    secret: Mapping[str, Any]
    answers: dict[str, str] = field(default_factory=dict)
    cells: list[NotebookNode] = field(default_factory=list)

    def __post_init__(self) -> None:
        for cell in self._solutions():
            is_code = cell["cell_type"] == "code"
            kept = [x for x in cell["source"].split("\n") if not x.strip().startswith("### ")]
            self.answers[cell["nbgrader"]["grade_id"]] = "\n".join(kept) if is_code else ""

    def _solutions(self) -> Iterator[Mapping[str, Any]]:
        return (cell for cell in self.secret["cells"] if cell["nbgrader"].get("solution"))

    @property
    def codes(self) -> list[str]:
        """The questions that are answered with code."""
        kinds = {c["nbgrader"]["grade_id"]: c["cell_type"] for c in self._solutions()}
        return [name for name, kind in kinds.items() if kind == "code"]

    def write(self, text: str) -> None:
        """Answer every question that asks for text."""
        for name in self.answers.keys() - set(self.codes):
            self.answers[name] = text

    def leave(self, first: int) -> None:
        """Leave all code but the first answers as it was released."""
        for name in self.codes[first:]:
            self.answers[name] = ""

    def add(self, place: int, code: str) -> None:
        """Put code, with {name} for what it defines, behind an answer; the last is not the end."""
        defining = [name for name in self.codes if defined_names(self.answers[name])]
        if defining:
            name = defining[place % len(defining)]
            defined = defined_names(self.answers[name])[0]
            self.answers[name] += code.replace("{name}", defined)

    def misunderstand(self, number: int) -> None:
        """Take a mutant's answer, counted from 0; after the last comes the first."""
        mutants = list(self.secret["mutants"].values())
        if mutants:
            source = mutants[number % len(mutants)]
            self.answers[replaced(self.secret, source)] = source

    def content(self) -> bytes:
        """The notebook's file."""
        notebook = answered(self.secret, self.answers)
        notebook.cells.extend(self.cells)
        return notebook_text(notebook).encode()


def made(secret: Mapping[str, Any], quality: str) -> HandedIn:
    """What somebody hands in whose work has that quality, one of `QUALITIES`.

    Raises:
        InputError: If there is no such quality.
    """
    number = quality.rpartition(" ")[2]
    draft, name = _Draft(secret), f"{secret['name']}.ipynb"
    if number.isdigit():
        draft.misunderstand(int(number) - 1)
        draft.write(SHORT_TEXT if int(number) % 2 else "")
        return HandedIn({name: draft.content()})
    files = _odd_files(quality, draft.content(), name)
    if files is not None:
        return HandedIn(files)
    if quality not in _SPOILT:
        raise InputError(f"there is no work of quality {quality!r}; expected one of {QUALITIES}")
    _SPOILT[quality](draft)
    hours = {"late": LATE, "late mutant": LATER}.get(quality, EARLY)
    return HandedIn({name: draft.content()}, hours)


def _script(draft: _Draft) -> None:
    draft.write(HOSTILE_TEXT)
    draft.cells.append(_code(HOSTILE_CELL))


def _late_mutant(draft: _Draft) -> None:
    draft.misunderstand(1)
    draft.write(GOOD_TEXT)


def _half_with_text(draft: _Draft) -> None:
    draft.leave((len(draft.codes) + 1) // 2)
    draft.write(SHORT_TEXT)


_SPOILT: dict[str, Callable[[_Draft], None]] = {
    "full": lambda draft: draft.write(""),
    "full with text": lambda draft: draft.write(GOOD_TEXT),
    "script": _script,
    "half": lambda draft: draft.leave((len(draft.codes) + 1) // 2),
    "first": lambda draft: draft.leave(1),
    "untouched": lambda draft: draft.leave(0),
    "crash": lambda draft: draft.add(
        1, "\n\n\ndef {name}(*_, **__):\n    import os\n    os._exit(1)"
    ),
    "forged": lambda draft: draft.add(0, ALWAYS_EQUAL),
    "late": lambda draft: draft.write(GOOD_TEXT),
    "late mutant": _late_mutant,
    "syntax error": lambda draft: draft.add(1, "\n    return ("),
    "endless": lambda draft: draft.add(
        2, "\n\n\ndef {name}(*_, **__):\n    while True:\n        pass"
    ),
    "noisy": lambda draft: draft.add(
        0, "\n\n\nimport sys\n\nfor step in range(200):\n    print('step', step, file=sys.stderr)"
    ),
    "half with text": _half_with_text,
}


def _odd_files(quality: str, content: bytes, name: str) -> dict[str, bytes] | None:
    """Files whose fault is not in the answers; None for any other quality."""
    return {
        "nothing": {},
        "empty": {name: b""},
        "no notebook": {name: b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n"},
        "two notebooks": {"Untitled.ipynb": content, "Untitled1.ipynb": content},
        "odd name": {"Copy of my work (final, really) ü.ipynb": content},
        "zipped": {"work.zip": _zipped(content, name)},
    }.get(quality)


def _zipped(content: bytes, name: str) -> bytes:
    """A zip as a Mac makes it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"work/{name}"), content)
        archive.writestr(zipfile.ZipInfo(f"__MACOSX/work/._{name}"), b"\0")
    return packed.getvalue()


def _code(source: str) -> NotebookNode:
    return node(
        id="own-cell",
        cell_type="code",
        source=source,
        metadata=node(),
        outputs=[],
        execution_count=None,
    )
