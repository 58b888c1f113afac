"""The trusted side of a sandbox: ask it to run a cell or to call a name, and wait only so long.

Whatever comes back is taken for hostile: a line of bounded length, in JSON, answering the question
that was asked, or else the sandbox is ended.
"""

import builtins
import json
import os
import secrets
import select
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import segedu
from segedu.grading import sandbox
from segedu.grading.assignment import Limits
from segedu.grading.tables import writable
from segedu.grading.values import LARGEST, MOST_ITEMS, NotPlain, decode, encode

WORKER = "import sys; sys.path.insert(0, {!r}); from segedu.grading.worker import main; main()"
START = 60.0  # seconds that a sandbox may take to start
GONE = 5.0  # seconds that its processes have to end
MOST_BRACKETS = 4 * MOST_ITEMS
ENDINGS = (StopIteration, StopAsyncIteration)  # one would end a loop of the tests, unseen
LONGEST_LINE = 2 * LARGEST


class SandboxFailed(Exception):  # noqa: N818 - what happened
    """The sandbox itself could not be had: no fault of the submission."""


class Ended(Exception):  # noqa: N818 - what happened
    """The student's process is gone: `why` is "crash", "timeout" or "protocol-error"."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class StudentError(Exception):
    """An error that the student's code raised and that is none of Python's own.

    Attributes:
        kind: The name of its type.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Bridge:
    """A running sandbox.

    Args:
        limits: Of its memory, processes, files and time.
        readable: Data that it may read.
        boxed: False for no sandbox at all; see `segedu.grading.sandbox.command`.
    """

    def __init__(
        self, limits: Limits, *, readable: tuple[Path, ...] = (), boxed: bool = True
    ) -> None:
        self.limits = limits
        self._rest = bytearray()
        program = [sys.executable, "-I", "-c", WORKER.format(str(Path(segedu.__file__).parents[1]))]
        whole = sandbox.command(program, limits, readable=readable, boxed=boxed)
        self._process = sandbox.start(whole)
        try:
            ready = self._read(time.monotonic() + START)
        except Ended as end:
            self.close()
            raise SandboxFailed(
                f"the sandbox did not start ({end.why}); see what `segedu doctor` says"
            ) from None
        if ready != {"ready": True}:
            self.close()
            raise SandboxFailed("the sandbox did not start as it should")

    def __enter__(self) -> "Bridge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def lives(self) -> bool:
        """Whether its process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the sandbox and all that runs in it, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        pipe = self._process.stdout
        assert pipe is not None
        deadline = time.monotonic() + GONE
        while not pipe.closed and select.select([pipe], [], [], _until(deadline))[0]:
            if not os.read(pipe.fileno(), 2**16) or not _until(deadline):
                break
        with suppress(OSError):  # what was still to be written
            self._process.communicate()

    def run(self, source: str) -> None:
        """Run a cell.

        Raises:
            Exception: What it raises.
            Ended: If the process did not survive it.
        """
        self._ask({"do": "run", "source": source})

    def look(self, names: list[str]) -> dict[str, Any]:
        """What each of the names is bound to: `Proxy`, `Other`, a plain value; missing ones not."""
        found = self._ask({"do": "look", "names": names})
        if not isinstance(found, dict):
            raise self._foul()
        seen = {name: self._seen(name, found[name]) for name in names if name in found}
        return {name: value for name, value in seen.items() if value is not Missing}

    def call(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call a name of the student's with plain values; returns a plain value."""
        request = {
            "do": "call",
            "name": name,
            "arguments": [encode(argument) for argument in arguments],
            "named": {key: encode(value) for key, value in named.items()},
        }
        return self._value(self._ask(request))

    def evaluate(self, source: str, given: dict[str, Any]) -> Any:
        """The value of an expression among the student's names and those given."""
        request = {
            "do": "evaluate",
            "source": source,
            "given": {key: encode(value) for key, value in given.items()},
        }
        return self._value(self._ask(request))

    def _seen(self, name: str, about: Any) -> Any:
        kind = about.get("kind") if isinstance(about, dict) else None
        if kind == "callable":
            return Proxy(self, name)
        if kind == "value":
            return self._value(about.get("value"))
        return Other(name) if kind == "other" else Missing

    def _value(self, given: Any) -> Any:
        try:
            return decode(given)
        except (NotPlain, RecursionError):
            raise self._foul() from None

    def _ask(self, request: dict[str, Any]) -> Any:
        """Send a request and wait for its answer."""
        if not self.lives:
            raise Ended("crash")
        number = secrets.token_hex(8)
        deadline = time.monotonic() + self.limits.cell_seconds
        self._write((json.dumps({"id": number, **request}) + "\n").encode(), deadline)
        answer = self._read(deadline)
        if answer.get("id") != number or ("value" in answer) == ("error" in answer):
            raise self._foul()
        if "error" in answer:
            raise self._error(answer["error"])
        return answer["value"]

    def _error(self, said: Any) -> Exception:
        """The error of the student's code as one of ours."""
        if not (isinstance(said, list) and len(said) == 2 and all(type(x) is str for x in said)):
            return self._foul()
        kind, message = map(writable, said)
        own = getattr(builtins, kind, None)
        if isinstance(own, type) and issubclass(own, Exception) and own not in ENDINGS:
            try:
                return own(message)
            except TypeError:  # one that wants more than a message
                return StudentError(kind, message)
        return StudentError(kind, message)

    def _foul(self) -> Ended:
        self.close()
        return Ended("protocol-error")

    def _write(self, data: bytes, deadline: float) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        os.set_blocking(pipe.fileno(), False)
        while data:
            _, ready, _ = select.select([], [pipe], [], _until(deadline))
            if not ready:
                self.close()
                raise Ended("timeout")
            try:
                data = data[os.write(pipe.fileno(), data) :]
            except BrokenPipeError:
                self.close()
                raise Ended("crash") from None

    def _read(self, deadline: float) -> dict[str, Any]:
        """The next line, as JSON."""
        pipe = self._process.stdout
        assert pipe is not None
        end = self._rest.find(b"\n")
        while end < 0:
            ready, _, _ = select.select([pipe], [], [], _until(deadline))
            if not ready:
                self.close()
                raise Ended("timeout")
            part = os.read(pipe.fileno(), 2**16)
            if not part:
                self.close()
                raise Ended("crash")
            found = part.find(b"\n")
            end = len(self._rest) + found if found >= 0 else -1
            self._rest += part
            if len(self._rest) > LONGEST_LINE:
                raise self._foul()
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        if line.count(b"{") + line.count(b"[") > MOST_BRACKETS:  # each would take 60 bytes or more
            raise self._foul()
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            raise self._foul() from None
        if not isinstance(answer, dict):
            raise self._foul()
        return answer


def _until(deadline: float) -> float:
    """Seconds that are left; 0 after the deadline."""
    return max(0.0, deadline - time.monotonic())


class Missing:
    """A name that is bound to nothing."""


class Proxy:
    """A function of the student's: called here, it runs in the sandbox."""

    def __init__(self, bridge: Bridge, name: str) -> None:
        self._bridge, self.__name__ = bridge, name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What it returns there, as a plain value."""
        return self._bridge.call(self.__name__, arguments, named)


class Other:
    """A name of the student's whose value may not leave the sandbox."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __repr__(self) -> str:
        return f"<{self.__name__}, which is no plain value; use student_eval>"
