import time
import tracemalloc
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from segedu.grading import bridge as module
from segedu.grading.assignment import Limits
from segedu.grading.bridge import Bridge, Ended, Other, Proxy, SandboxFailed, StudentError

pytestmark = pytest.mark.usefixtures("sandboxed")
FIND_WORKER = (
    "import gc\n"
    "worker = next(o for o in gc.get_objects() if type(o) is dict and '_answer' in o and '_look' in o)\n"
)
LIMITS = Limits(cell_seconds=2, memory_gb=2, processes=32)


@pytest.fixture
def bridge(sandboxed):
    with Bridge(LIMITS) as running:
        yield running


def test_a_function_of_the_students_is_called_with_values_and_gives_values(bridge):
    bridge.run("import numpy as np\ndef f(x, k=2): return np.asarray(x) * k")
    f = bridge.look(["f"])["f"]
    assert isinstance(f, Proxy)
    np.testing.assert_array_equal(f(np.array([[1.5]]), k=3), [[4.5]])


def test_names_are_seen_as_what_they_are(bridge):
    bridge.run("import math\nk = (1, 'a')\nbad = object()\ndef f(): pass")
    seen = bridge.look(["k", "bad", "f", "nothing"])
    assert seen["k"] == (1, "a")
    assert isinstance(seen["bad"], Other)
    assert "use student_eval" in repr(seen["bad"])
    assert set(seen) == {"k", "bad", "f"}


def test_an_expression_is_evaluated_among_the_students_names(bridge):
    bridge.run("class Net:\n    def __init__(self, n): self.n = n")
    assert bridge.evaluate("[Net(i).n for i in range(n)]", {"n": 3}) == [0, 1, 2]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("1 / 0", ZeroDivisionError),
        ("def f(:", SyntaxError),
        ("raise FileNotFoundError('x')", FileNotFoundError),
        ("def f(): return f()\nf()", RecursionError),
        ("import nothing_of_that_name", ModuleNotFoundError),
        ("input()", EOFError),
    ],
)
def test_an_error_arrives_as_the_error_it_is(bridge, source, kind):
    with pytest.raises(kind):
        bridge.run(source)
    bridge.run("x = 1")  # and the process lives


@pytest.mark.parametrize(
    "source",
    [
        "class Own(Exception): pass\nraise Own('x')",
        "import sys\nsys.exit(0)",
        "raise UnicodeDecodeError('utf-8', b'', 0, 1, 'x')",
        "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute",
    ],
)
def test_other_errors_arrive_as_a_students_error(bridge, source):
    with pytest.raises(StudentError):
        bridge.run(source)
    bridge.run("x = 1")


def test_a_call_that_exits_is_an_error_and_the_process_lives(bridge):
    bridge.run("import sys\ndef f(): sys.exit(0)")
    with pytest.raises(StudentError, match="SystemExit"):
        bridge.look(["f"])["f"]()
    bridge.run("x = 1")


def test_quitting_ends_nothing(bridge):
    bridge.run("x = 1\nquit()")
    assert bridge.look(["x"]) == {"x": 1}


def test_a_value_that_may_not_leave_is_a_type_error(bridge):
    bridge.run("def f(): return object()")
    with pytest.raises(TypeError, match="no plain value"):
        bridge.look(["f"])["f"]()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import os; os._exit(0)", "crash"),
        ("import ctypes; ctypes.string_at(0)", "crash"),
        ("while True: pass", "timeout"),
        ("import signal\nfor s in (2, 14, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass", "timeout"),
        ("import os\nfor n in range(3, 30):\n  try: os.write(n, b'{}\\n')\n  except OSError: pass", "protocol-error"),
        ("import os\nfor n in range(3, 30):\n  try: os.write(n, b'\\xff\\n')\n  except OSError: pass", "protocol-error"),
        ("import os\nfor n in range(3, 30):\n  try: os.write(n, b'[' * 9999 + b'\\n')\n  except OSError: pass", "protocol-error"),
        ("import os\nfor n in range(3, 30):\n  try: os.write(n, b'7\\n')\n  except OSError: pass", "protocol-error"),
        ("import os\nfor n in range(3, 30):\n  try:\n    while True: os.write(n, b'x' * 65536)\n  except OSError: pass", "protocol-error"),
    ],
)  # fmt: skip
def test_what_ends_a_process_is_said_and_is_quick(bridge, source, why):
    begun = time.monotonic()
    with pytest.raises(Ended) as caught:
        bridge.run(source)
    assert caught.value.why == why
    assert time.monotonic() - begun < LIMITS.cell_seconds + 4
    with pytest.raises(Ended):
        bridge.run("x = 1")


@pytest.mark.parametrize(
    "answer",
    [
        "{'id': ID, 'value': {'pickle': 'x'}}",
        "{'id': ID, 'value': 1, 'error': ['ValueError', 'x']}",
        "{'id': ID}",
        "{'id': 'other', 'value': 1}",
        "{'id': ID, 'error': 'ValueError'}",
    ],
)
def test_a_forged_answer_ends_the_process(bridge, answer):
    bridge.run(
        FIND_WORKER + "import json, os\n"
        "def forge(shell, request):\n"
        f"    ID = request['id']\n    line = json.dumps({answer}) + '\\n'\n"
        "    for n in range(3, 30):\n"
        "        try: os.write(n, line.encode())\n"
        "        except OSError: pass\n"
        "    return {'value': None}\n"
        "worker['_answer'] = forge"
    )
    with pytest.raises(Ended, match="protocol-error"):
        bridge.evaluate("1", {})


@pytest.mark.parametrize(
    ("seen", "foul"),
    [("1", True), ("{'f': 1}", False), ("{'f': {'kind': 'value', 'value': {'x': 1}}}", True)],
)
def test_a_forged_look_is_a_protocol_error_or_nothing(bridge, seen, foul):
    bridge.run(FIND_WORKER + f"worker['_answer'] = lambda shell, request: {{'value': {seen}}}")
    with pytest.raises(Ended, match="protocol-error") if foul else nullcontext():
        assert bridge.look(["f"]) == {}


def test_hogging_memory_is_a_memory_error(bridge):
    with pytest.raises(MemoryError):
        bridge.run("x = bytearray(3 * 2**30)")


def test_a_fork_bomb_is_bounded_and_leaves_nothing(bridge):
    with pytest.raises(BlockingIOError):
        bridge.run("import os, time\nfor _ in range(99):\n    if os.fork() == 0: time.sleep(60)")
    space = namespace(bridge)
    bridge.close()
    assert living_in(space) == 0


def test_a_daemon_does_not_outlive_its_sandbox(bridge):
    bridge.run(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        for n in range(64):\n            try: os.close(n)\n            except OSError: pass\n"
        "        time.sleep(600)\n    os._exit(0)"
    )
    space = namespace(bridge)
    bridge.close()
    assert living_in(space) == 0


def test_a_request_that_nobody_reads_times_out(bridge):
    bridge.run("import os, threading\nos.kill(os.getpid(), 0)")
    bridge.run("def f(x): return len(x)")
    with pytest.raises(Ended):
        bridge.run("import signal, os\nos.kill(os.getpid(), signal.SIGSTOP)")


def test_a_large_request_to_a_process_that_is_gone_is_a_crash(bridge):
    bridge._process.kill()
    bridge._process.wait()
    with pytest.raises(Ended, match="crash"):
        bridge.run("x" * 10_000_000)


def test_a_sandbox_that_does_not_start_is_no_fault_of_the_submission(monkeypatch, sandboxed):
    monkeypatch.setattr(module.sandbox, "command", lambda *_, **__: ["false"])
    with pytest.raises(SandboxFailed, match="did not start"):
        Bridge(LIMITS)
    monkeypatch.setattr(module.sandbox, "command", lambda *_, **__: ["echo", "{}"])
    with pytest.raises(SandboxFailed, match="did not start as it should"):
        Bridge(LIMITS)


def namespace(bridge):
    """That of the sandbox's processes; other tests may have sandboxes of their own."""
    inside = psutil.Process(bridge._process.pid).children(recursive=True)[-1]
    found = Path(f"/proc/{inside.pid}/ns/pid").readlink()
    assert found != Path("/proc/self/ns/pid").readlink()
    assert len(members(found)) > 2  # the worker and what it has left running
    return found


def members(space):
    """Processes in this namespace; those that ended and wait for init are in none."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if Path(f"/proc/{process.pid}/ns/pid").readlink() == space:
                found.append(process)
    return found


def living_in(space):
    for _ in range(50):
        if not members(space):
            return 0
        time.sleep(0.1)
    return len(members(space))


def test_a_line_of_many_parts_is_refused_before_it_takes_memory(bridge):
    forged = "worker['json'] = type('J', (), {'dumps': lambda *a: '[' + '[],' * 5_000_000 + '1]'})"
    tracemalloc.start()
    try:
        with pytest.raises(Ended, match="protocol-error"):
            bridge.run(f"import gc\n{FIND_WORKER}{forged}")
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


def test_stop_iteration_does_not_end_a_loop_of_the_tests(bridge):
    bridge.run("def f(x): raise StopIteration")
    with pytest.raises(StudentError, match="StopIteration"):
        all(map(bridge.look(["f"])["f"], [1, 2]))
