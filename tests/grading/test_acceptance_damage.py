"""Submissions that would do damage, as the design's list has them, against the sandbox."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import psutil
import pytest
from hostile_class import (
    Case,
    check,
    check_batch,
    double,
    grade_again,
    grade_all,
    make_source,
    told,
)
from test_archives import zipped

from segedu.grading.assignment import read_assignment
from segedu.grading.collect import collect, read_times
from segedu.grading.grade import grade_class
from segedu.grading.keys import answered, read_key
from segedu.grading.release import write_release
from segedu.grading.results import read_results
from segedu.grading.roster import Person

pytestmark = pytest.mark.usefixtures("sandboxed")

CANARY = "canary-5f1d"
DAEMON = f"import time; time.sleep(600)  # daemon-{os.getpid()}"
ROOT = Path(__file__).parents[2]
GET_OUT = """
import os, socket
def tried(make):
    try:
        make()
        return "yes"
    except Exception as error:
        return "no"
"""


def pipe(folder, _):
    os.mkfifo(folder / "tiny.ipynb")


def link_to(target):
    def write(folder, _):
        (folder / "tiny.ipynb").symlink_to(target)

    return write


def pickled(notebook):
    """A pickle where a grader might look for one."""
    bomb = base64.b64encode(b"cos\nsystem\n(S'touch /tmp/" + CANARY.encode() + b"'\ntR.").decode()
    notebook.metadata["pickle"] = bomb
    notebook.cells[0].metadata["pickle"] = bomb


SCRIPTS = """
from IPython.display import HTML, Markdown, SVG, display
display(HTML("<script>alert('html')</script>"))
display(SVG("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(2)</script></svg>"))
display(Markdown("[x](javascript:alert(3)) <img src=x onerror=alert(4)>"))
display({"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}, raw=True)
class Odd(Exception): pass
raise Odd("<script>alert('traceback')</script>")
"""

CASES = {
    "reads": Case(
        "keys, passwords, homes and other submissions cannot be read",
        cells=(
            f"""
            import glob, os
            tried = {{"key": "KEYS/key.json", "other": "SUBMISSIONS/a-first/tiny.ipynb",
                     "passwords": "/etc/passwd", "shadow": "/etc/shadow", "home": "HOME/.ssh/id_rsa",
                     "results": "GRADED/a-first/tiny.result.json", "project": {str(ROOT / "pyproject.toml")!r}}}
            found = [name for name, path in tried.items() if os.access(path, os.R_OK)]
            found += [p for p in glob.glob("/proc/[0-9]*/environ") + glob.glob("/home/*") + glob.glob("/root/*")
                      if "/proc/self" not in p and int(p.split("/")[2] if p.startswith("/proc") else 0) != os.getpid() and not p.startswith("/proc")]
            print("could read:", found)
            """,
        ),
        copy="could read: []",
        not_in_copy=CANARY,
    ),
    "writes": Case(
        "results and submissions cannot be written",
        cells=(
            GET_OUT
            + """
for path in ("GRADED/writes/tiny.result.json", "SUBMISSIONS/a-first/tiny.ipynb", "KEYS/key.json", "/usr/x", "/etc/x"):
    print("wrote:", tried(lambda: open(path, "w").write("x")))
""",
        ),
        copy="wrote: no",
        not_in_copy="wrote: yes",
    ),
    "sockets": Case(
        "no socket of any kind leads out",
        cells=(
            GET_OUT
            + """
def inet(): socket.create_connection(("127.0.0.1", PORT), timeout=1)
def inet6(): socket.create_connection(("::1", PORT), timeout=1)
def dns(): socket.getaddrinfo("example.org", 80)
def udp(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("8.8.8.8", 53))
def raw(): socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
def packet(): socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
def abstract(): socket.socket(socket.AF_UNIX).connect("\\0ABSTRACT")
def path(): socket.socket(socket.AF_UNIX).connect("UNIXPATH")
def vsock(): socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).connect((2, 22))
for way in (inet, inet6, dns, udp, raw, packet, abstract, path, vsock):
    print("reached:", tried(way), way.__name__)
""",
        ),
        copy="reached: no vsock",
        not_in_copy="reached: yes",
    ),
    "forks": double(
        """
        import os, time
        def double(x):
            children = 0
            try:
                while children < 500:
                    if os.fork() == 0:
                        time.sleep(60)
                        os._exit(0)
                    children += 1
            except OSError:
                pass
            return [children < 500] * 2
        """,
        says="a fork bomb meets a bound and is gone",
    ),
    "threads": double(
        """
        import threading, time
        def double(x):
            for _ in range(500):
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        """,
        says="threads meet a bound",
    ),
    "files": double(
        """
        import os
        def double(x):
            handles = []
            while True:
                handles.append(open(os.devnull))
        """,
        says="open files meet a bound",
    ),
    "fills": Case(
        "the scratch folders are bounded and full for their own submission only",
        {
            "double": """
import os
def fill(folder):
    with open(folder + "/x", "wb", buffering=0) as file:
        while True:
            file.write(bytes(2**20))
def double(x):
    fill("/tmp")
""",
            "total": "def total(v):\n    fill('/dev/shm')",
        },
        questions={"double_test": ("fail", 0), "total_test": ("fail", 0)},
    ),
    "many-files": double(
        """
        def double(x):
            n = 0
            while True:
                open(f"/tmp/{n}", "w").write("x" * 9999)
                n += 1
        """,
        says="any number of files ends at a bound",
    ),
    "endless": Case(
        "endless output ends the kernel, and its answers count",
        cells=("while True: print('x' * 1000)",),
        copy=" too ",  # much, or long: which it meets first is the machine's
    ),
    "steady": Case(
        "output without an end ends the kernel at its limit, and its answers count",
        cells=("import time\nwhile True:\n    print('x' * 50_000)\n    time.sleep(0.01)",),
        copy="the notebook printed too much",
    ),
    "one-line": Case(
        "one line of 20 MB ends the kernel, and its answers count",
        cells=("print('x' * 20_000_000)",),
        copy="the notebook printed too much",
    ),
    "sigint": double(
        """
        import signal
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        def double(x):
            while True:
                try:
                    while True: pass
                except BaseException: pass
        """,
        says="who ignores every signal is ended all the same",
        result="timeout",
    ),
    "garbled": Case(
        "garbled messages of the kernel spoil its own copy only",
        cells=(
            """
            kernel = get_ipython().kernel
            socket = getattr(kernel.iopub_socket, "io_thread", None)
            socket = socket.socket if socket else kernel.iopub_socket
            for part in (b"", b"garbage", b"<IDS|MSG>", b"\\xff" * 1000):
                socket.send_multipart([part] * 6)
            """,
        ),
    ),
    "pipe": double(
        """
        import os
        def double(x):
            for n in range(3, 64):
                try: os.write(n, b'{"id": "x", "value": [1]}\\n' * 9)
                except OSError: pass
            return "wrong"
        """,
        says="garbage in the worker's pipe is a protocol error that a person looks at",
        result="protocol-error",
        status="needs-review",
    ),
    "daemons": Case(
        "daemons end with their sandbox",
        cells=(
            f"""
            import subprocess, sys, os
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.execv(sys.executable, [sys.executable, "-c", {DAEMON!r}])
                os._exit(0)
            subprocess.Popen([sys.executable, "-c", {DAEMON!r}], start_new_session=True)
            """,
        ),
    ),
    "kills": double(
        """
        import os, signal
        def double(x):
            for target in (os.getppid(), 1, -1, *range(2, 400)):
                if target != os.getpid():
                    try: os.kill(target, signal.SIGKILL)
                    except OSError: pass
            return "wrong"
        """,
        says="killing parents and all there is costs its own question",
        result="crash",
    ),
    "scripts": Case("scripts in outputs are no marks and none in the summary", cells=(SCRIPTS,)),
    "link-passwd": Case(
        "a link to /etc/passwd is invalid",
        write=link_to("/etc/passwd"),
        status="invalid",
        reason="cannot be opened",
    ),
    "link-other": Case(
        "a link to another's submission is invalid",
        write=link_to("../a-first/tiny.ipynb"),
        status="invalid",
        reason="cannot be opened",
    ),
    "fifo": Case("a pipe is invalid", write=pipe, status="invalid", reason="no ordinary file"),
    "pickles": Case(
        "nothing is unpickled",
        {
            "double": "import os\nclass Bomb:\n    def __reduce__(self): return (os.system, ('touch /tmp/CANARY',))\ndef double(x): return np.array([Bomb(), Bomb()], dtype=object)"
        },
        change=pickled,
        questions={"double_test": ("fail", 0)},
    ),
    "colludes-1": Case(
        "who leaves an answer for another leaves it to nobody",
        cells=(
            """
            import pathlib
            for folder in ("/tmp", "/dev/shm", ".", "/var/tmp", "/run"):
                try: pathlib.Path(folder, "shared").write_text("the answer")
                except OSError: pass
            """,
        ),
    ),
    "colludes-2": Case(
        "who looks for another's answer finds none",
        cells=(
            """
            import glob, time
            time.sleep(1.5)
            print("found:", [p for f in ("/tmp", "/dev/shm", ".", "/var/tmp", "/run") for p in glob.glob(f + "/shared")])
            """,
        ),
        copy="found: []",
    ),
    "=HYPERLINK(1)": Case("a student's folder named as a formula is a name"),
}
TWICE = ["files", "kills", "pickles"]


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The batch; what the cases name is put in before they are written."""
    base = tmp_path_factory.mktemp("damage")
    home = base / "home" / ".ssh"
    home.mkdir(parents=True)
    (home / "id_rsa").write_text(CANARY)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        name = f"segedu-test-{os.getpid()}"
        local.bind(f"\0{name}")
        local.listen()
        known = {
            "KEYS": str(base / "key/tiny"),
            "SUBMISSIONS": str(base / "submissions"),
            "GRADED": str(base / "graded"),
            "HOME": str(base / "home"),
            "PORT": str(server.getsockname()[1]),
            "ABSTRACT": name,
            "UNIXPATH": str(base / "key/socket"),
            "CANARY": CANARY,
        }

        def filled(text):
            for word, value in known.items():
                text = text.replace(word, value)
            return text

        cases = {
            student: Case(
                **{
                    **vars(case),
                    "cells": tuple(filled(cell) for cell in case.cells),
                    "answers": {name: filled(text) for name, text in case.answers.items()},
                }
            )
            for student, case in CASES.items()
        }
        yield grade_all(base, cases)


@pytest.mark.parametrize("student", [pytest.param(s, id=c.says) for s, c in CASES.items()])
def test_it_is_so(student, graded):
    check(CASES[student], student, graded)


def test_all_have_a_result_and_nothing_is_left(graded):
    check_batch(graded, CASES)
    assert not Path("/tmp", CANARY).exists()
    commands = []
    for process in psutil.process_iter():
        try:
            commands.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    assert not [command for command in commands if f"daemon-{os.getpid()}" in command]


def test_the_summary_of_a_copy_has_no_script_and_no_formula(graded):
    for student in ("scripts", "=HYPERLINK(1)"):
        summary = nbformat.read(graded.out / student / "tiny.ipynb", 4).cells[0].source
        assert "<script" not in summary
        assert "alert" not in summary
        assert f"Student `{student}`" in summary


def test_graded_again_the_results_are_the_same(graded, tmp_path):
    again = grade_again(graded, TWICE, tmp_path)
    assert {s: told(r) for s, r in again.items()} == {s: told(graded.results[s]) for s in TWICE}


def test_hostile_files_forged_dates_and_odd_names_in_an_inbox_cost_their_own_students(tmp_path):
    source = make_source(tmp_path)
    write_release(read_assignment(source), tmp_path / "release", tmp_path / "key")
    sound = nbformat.writes(answered(read_key(tmp_path / "key/tiny"))).encode()
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "slip.zip").write_bytes(zipped(("../../honest/tiny.ipynb", b"{}")))
    (inbox / "bomb.zip").write_bytes(zipped(("tiny.ipynb", bytes(50 * 2**20))))
    (inbox / "=HYPERLINK(1).ipynb").write_bytes(sound)
    for student in ("honest", "early"):
        (inbox / f"{student}.ipynb").write_bytes(sound)
    os.utime(inbox / "early.ipynb", (0, 0))  # says 1970, came on 3 December
    arrivals = tmp_path / "arrivals.csv"
    arrivals.write_text("student,arrived\nearly,2026-12-03T11:00+00:00\nhonest,2026-11-30T11:00Z\n")
    people = {s: Person(s) for s in ("slip", "bomb", "honest", "early", "absent")}
    times = read_times(arrivals, None, "UTC")
    rows = collect(inbox, tmp_path / "submissions", people, times, "tiny")
    assert {row.source: row.status for row in rows}["=HYPERLINK(1).ipynb"] == "unknown"
    arrived = {row.student: row.arrived for row in rows if row.arrived}
    results = {
        r.student: r
        for r in grade_class(
            tmp_path / "key/tiny",
            tmp_path / "submissions",
            tmp_path / "graded",
            jobs=2,
            arrived=arrived,
        )
    }
    said = {s: (r.status, r.score) for s, r in results.items()}
    assert said == {
        **dict.fromkeys(["slip", "bomb", "absent"], ("invalid", 0)),
        "honest": ("needs-manual", 5),
        "early": ("needs-manual", pytest.approx(5 - 2 * 0.6)),
    }
    assert "leads out" in results["slip"].reason
    assert "200 times" in results["bomb"].reason
    assert results["absent"].reason == "nothing was handed in"
    assert results["early"].arrived == datetime(2026, 12, 3, 11, tzinfo=UTC).isoformat()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system here")
def test_a_full_disk_is_no_mark_and_grading_goes_on_once_there_is_space(tmp_path):
    source = make_source(tmp_path)
    write_release(read_assignment(source), tmp_path / "release", tmp_path / "key")
    secret = read_key(tmp_path / "key/tiny")
    for student in ("ana", "bo"):
        (tmp_path / "submissions" / student).mkdir(parents=True)
        nbformat.write(answered(secret), tmp_path / "submissions" / student / "tiny.ipynb")
    out = tmp_path / "graded"
    out.mkdir()
    grade = f"{sys.executable} -m segedu grade {tmp_path}/key/tiny --submissions {tmp_path}/submissions -o {out}"
    script = f"""
        cat /dev/zero > {out}/filler 2>/dev/null
        {grade}; echo status $?
        find {out} -name '*.json' -o -name '*unfinished*' -o -name '*.ipynb'
        rm {out}/filler
        {grade}; echo status $?
        cp -r {out} {tmp_path}/kept
        """
    box = ["bwrap", "--dev-bind", "/", "/", "--size", "200000", "--tmpfs", out, "--cap-add", "ALL"]
    done = subprocess.run(
        [*box, "sh", "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    first, second = done.stdout.split("status 4\n")
    assert first.count("infrastructure") == 2
    assert "No space left on device; free some space and grade again" in first
    assert "json" not in second.split("student")[0]
    assert "unfinished" not in second
    assert "status 3" in second
    results = list(read_results(tmp_path / "kept"))
    assert [(r.student, r.score) for r in results] == [("ana", 5), ("bo", 5)]
    shutil.rmtree(tmp_path / "kept")


def test_a_notebook_is_bounded_before_it_is_read(graded):
    """The copy of a submission that printed 20 MB holds none of it."""
    text = (graded.out / "one-line" / "tiny.ipynb").read_text()
    assert len(text) < 100_000
    assert json.loads(text)["cells"]
