"""What runs inside a sandbox: the student's cells, and what the tests ask of their names.

Started by `segedu.grading.bridge`, which speaks to it in lines of JSON through its
standard input and output. The student's code gets neither of the two: it prints into nothing. It
shares the process, so it may well write forged answers; they are read as plain values, no more.
"""

import json
import os
import sys
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from segedu.grading.values import NotPlain, decode, encode

LONGEST = 500  # characters of an error's message


class Shell(InteractiveShell):
    """IPython without a screen: what a notebook says of windows and figures changes nothing."""

    def enable_gui(self, gui: str | None = None) -> None:
        """No window is ever opened."""

    def enable_matplotlib(self, gui: str | None = None) -> tuple[str, str]:  # noqa: ARG002
        """Figures are drawn, whatever `%matplotlib` asks for, and nobody sees them."""
        return "agg", "agg"


def main() -> None:
    """Answer one request after another until there are no more."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    shell = Shell.instance()
    sys.path.insert(0, "")  # as a kernel has it: cells import what cells before them wrote
    shell.ask_exit = lambda: None  # type: ignore[attr-defined]
    answers.write('{"ready": true}\n')
    answers.flush()
    for line in requests:
        request = json.loads(line)
        answer = {"id": request["id"], **_answer(shell, request)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(shell: InteractiveShell, request: dict[str, Any]) -> dict[str, Any]:
    """What to say to a request; an error of the student's code is an answer too."""
    names = shell.user_ns
    try:
        if request["do"] == "run":
            return _run(shell, request["source"])
        if request["do"] == "look":
            return {"value": {name: _look(names, name) for name in request["names"]}}
        if request["do"] == "call":
            arguments = [decode(argument) for argument in request["arguments"]]
            named = {name: decode(value) for name, value in request["named"].items()}
            return {"value": encode(names[request["name"]](*arguments, **named))}
        given = {name: decode(value) for name, value in request["given"].items()}
        return {"value": encode(eval(request["source"], names, given))}
    except NotPlain as error:
        return {"error": ["TypeError", f"the value {error}"]}
    except BaseException as error:  # noqa: BLE001 - SystemExit and the like, too
        return {"error": _said(error)}


def _run(shell: InteractiveShell, source: str) -> dict[str, Any]:
    result = shell.run_cell(source, store_history=False, silent=True)  # type: ignore[no-untyped-call]
    error = result.error_before_exec or result.error_in_exec
    return {"error": _said(error)} if error is not None else {"value": None}


def _look(names: dict[str, Any], name: str) -> dict[str, Any]:
    """What a name is bound to: nothing, something to call, or a value."""
    if name not in names:
        return {"kind": "missing"}
    if callable(names[name]):
        return {"kind": "callable"}
    try:
        return {"kind": "value", "value": encode(names[name])}
    except Exception as error:  # noqa: BLE001 - the object is the student's
        return {"kind": "other", "about": str(error)[:LONGEST]}


def _said(error: BaseException) -> list[str]:
    """An error's type and message; the message is made by the student's code, and may fail."""
    try:
        text = str(error)[:LONGEST]
    except BaseException:  # noqa: BLE001 - as above
        text = ""
    return [type(error).__name__[:80], text]
