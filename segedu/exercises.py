"""Exercises that answer back: not done yet, right, or what exactly is wrong.

A chapter's check cell makes an `Exercise` from the solution and from mistakes that readers make,
and gives it the reader's function. `prove` is how the tests know that it tells them all apart.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from segedu.compare import difference, kind_of, name_of, short
from segedu.errors import InputError

NOT_DONE = "not done yet"
RIGHT = "right"


@dataclass(frozen=True)
class Exercise:
    """A question whose answer is a function, with its solution and the mistakes it knows by name.

    Attributes:
        solution: The reference answer.
        inputs: Tuples of arguments, smallest first: the first that fails is shown to the reader.
        misconceptions: From a sentence that says what was misunderstood to a function that makes
            that mistake; two or more.
        tolerance: Largest difference allowed between numbers: absolute up to 1, relative beyond.
            nan equals nan.

    Raises:
        InputError: If an input is no tuple, there is none, or fewer than two misconceptions.

    Example:
        >>> exercise = Exercise(
        ...     solution=lambda j: 2 * j / (1 + j),
        ...     inputs=[(0.0,), (0.5,), (1.0,)],
        ...     misconceptions={
        ...         "that is IoU from Dice, the other way round": lambda j: j / (2 - j),
        ...         "the intersection was counted twice": lambda j: 2 * j,
        ...     },
        ... )
        >>> exercise.check(lambda j: 2 * j)
        wrong: the intersection was counted twice
    """

    solution: Callable[..., Any]
    inputs: Sequence[Any]
    misconceptions: Mapping[str, Callable[..., Any]]
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if not self.inputs or not all(isinstance(arguments, tuple) for arguments in self.inputs):
            raise InputError(
                f"inputs are {short(self.inputs)}; expected one or more tuples of arguments, "
                "such as [(0.5,), (1.0,)]"
            )
        if len(self.misconceptions) < 2:
            raise InputError(
                f"an exercise has {len(self.misconceptions)} misconceptions; expected two or more"
            )

    def verdict(self, answer: Any) -> str:
        """Say `"right"`, `"not done yet"`, or `"wrong: ..."` with what is wrong; never raises.

        An answer that does on all inputs what a misconception does is told that misconception's
        sentence; any other is told the first input on which it fails.
        """
        if answer is None or answer is ...:
            return NOT_DONE
        if not callable(answer):
            return f"wrong: the answer is {short(answer)}, expected a function"
        got = self._outcomes(answer)
        if self._same(got, self._expected):
            return RIGHT
        if any(outcome.is_stub for outcome in got) or all(outcome.is_empty for outcome in got):
            return NOT_DONE
        for sentence, mistaken in self.misconceptions.items():
            if self._same(got, self._outcomes(mistaken)):
                return f"wrong: {sentence}"
        return f"wrong: {self._first_failure(name_of(answer), got)}"

    def check(self, answer: Any) -> None:
        """Print the verdict on `answer`."""
        print(self.verdict(answer))

    def prove(self, stub: Callable[..., Any]) -> None:
        """Show that stub, solution and each misconception get the verdicts they are there for.

        Raises:
            AssertionError: If one does not: a misconception that is right on all inputs, say.
        """
        cases = [("the stub", stub, NOT_DONE), ("the solution", self.solution, RIGHT)]
        cases += [
            (f"the misconception {sentence!r}", mistaken, f"wrong: {sentence}")
            for sentence, mistaken in self.misconceptions.items()
        ]
        for name, answer, wanted in cases:
            verdict = self.verdict(answer)
            if verdict != wanted:
                raise AssertionError(f"{name} gets {verdict!r}, expected {wanted!r}")

    @cached_property
    def _expected(self) -> "list[_Outcome]":
        return self._outcomes(self.solution)

    def _outcomes(self, answer: Callable[..., Any]) -> "list[_Outcome]":
        return [_outcome(answer, arguments) for arguments in self.inputs]

    def _same(self, got: "list[_Outcome]", want: "list[_Outcome]") -> bool:
        pairs = zip(got, want, strict=True)
        return all(a.failure(b, self.tolerance) is None for a, b in pairs)

    def _first_failure(self, name: str, got: "list[_Outcome]") -> str:
        """What happened on the first input where `got` is not as expected."""
        for arguments, outcome, expected in zip(self.inputs, got, self._expected, strict=True):
            failure = outcome.failure(expected, self.tolerance)
            if failure:
                return f"{name}({', '.join(map(short, arguments))}) {failure}"
        raise AssertionError("unreachable: called for an answer that fails")  # pragma: no cover


@dataclass(frozen=True)
class _Outcome:
    """What one call did: its value or its error, and whether it changed its arguments."""

    value: Any
    error: BaseException | None
    changes_input: bool

    @property
    def is_stub(self) -> bool:
        """Whether it is the stub's bare `raise NotImplementedError`; torch's own has a message."""
        return isinstance(self.error, NotImplementedError) and not self.error.args

    @property
    def is_empty(self) -> bool:
        return self.error is None and (self.value is None or self.value is ...)

    def failure(self, expected: "_Outcome", tolerance: float) -> str | None:
        """What is not as `expected`, or None; an error may be of a narrower type."""
        if self.error is not None or expected.error is not None:
            return self._failure_by_error(expected.error)
        found = difference(self.value, expected.value, tolerance)
        if found:
            return f"gives {found[0]}, expected {found[1]}"
        if self.changes_input == expected.changes_input:
            return None
        return "changes its input" if self.changes_input else "leaves its input as it was"

    def _failure_by_error(self, expected: BaseException | None) -> str | None:
        """As `failure`, where one of the two calls or both raised an error."""
        if expected is not None and isinstance(self.error, type(expected)):
            return None
        wanted = "" if expected is None else f", expected {type(expected).__name__}"
        if self.error is None:
            return f"gives {short(self.value)}{wanted}"
        lines = str(self.error).splitlines()
        message = f": {lines[0]}" if lines else ""
        return f"raises {type(self.error).__name__}{message}{wanted}"


def _outcome(answer: Callable[..., Any], arguments: tuple[Any, ...]) -> _Outcome:
    """Call `answer` with copies of `arguments`."""
    given = _copy(arguments)
    value, error = None, None
    try:
        value = _copy(answer(*given))
    except (Exception, SystemExit) as raised:  # noqa: BLE001 - whatever the reader's code raises
        error = raised
    return _Outcome(value, error, changes_input=not _unchanged(given, arguments))


def _copy(value: Any) -> Any:
    """A copy that shares no number with `value`; what cannot be copied stays itself."""
    if hasattr(value, "detach"):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if hasattr(value, "clone_state"):  # a torch.Generator
        return value.clone_state()
    if type(value) in (list, tuple):
        return type(value)(map(_copy, value))
    if type(value) is dict:
        return {key: _copy(entry) for key, entry in value.items()}
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - a generator, a module: whatever refuses to be copied
        return value


def _unchanged(after: Any, before: Any) -> bool:
    """Whether no number, string or container in `after` differs; other objects may live on."""
    kind = kind_of(before)
    if kind == "object":
        return True
    if kind == "sequence":
        pairs = zip(after, before, strict=False)
        return len(after) == len(before) and all(_unchanged(a, b) for a, b in pairs)
    if kind == "dict":
        return list(after) == list(before) and all(_unchanged(after[k], before[k]) for k in before)
    return difference(after, before, tolerance=0.0) is None
