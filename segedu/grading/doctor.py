"""What a sandbox on this machine enforces, found by trying: each probe runs inside one."""

import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from segedu.errors import InputError
from segedu.grading import sandbox
from segedu.grading.assignment import Limits
from segedu.grading.bridge import Bridge, Ended, SandboxFailed

USERNS = (
    "bubblewrap may not make user namespaces here; on Ubuntu, allow it with an AppArmor profile "
    "for /usr/bin/bwrap that has `userns,`, or `sysctl kernel.apparmor_restrict_unprivileged_userns"
    "=0`; in a container, start it with `--security-opt seccomp=unconfined`"
)

DO_NOT = "do not grade here: what is not enforced, a submission can do; see `man bwrap`"

PROBES = {
    "no network": """
import socket
def probe():
    try:
        socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
    except OSError:
        return True
    return False
""",
    "no abstract socket of the host": """
import socket
def probe():
    try:
        socket.socket(socket.AF_UNIX).connect("\\0" + NAME)
    except OSError:
        return True
    return False
""",
    "a bound on processes": """
import os, time
def probe():
    for _ in range(PROCESSES + 8):
        try:
            if os.fork() == 0:
                time.sleep(2)
                os._exit(0)
        except OSError:
            return True
    return False
""",
    "a bound on memory": """
def probe():
    try:
        bytearray(MEMORY)
    except MemoryError:
        return True
    return False
""",
    "a bound on /dev/shm": """
def probe():
    try:
        for name in "abc":  # each is smaller than the largest file that may be
            with open(f"/dev/shm/{name}", "wb") as file:
                for _ in range(FILE_MB // 2):
                    file.write(bytes(2**20))
    except OSError:
        return True
    return False
""",
    "nothing to read of this user": """
import os
def probe():
    return all(not os.access(path, os.R_OK) for path in SECRETS)
""",
    "nothing to write but scratch": """
import os
def probe():
    return not any(os.access(path, os.W_OK) for path in ("/", "/usr", "/etc", PREFIX))
""",
    "no rights, and none to be had": """
import os
def probe():
    with open("/proc/self/status") as file:
        status = file.read()
    powerless = "CapEff:\\t0000000000000000" in status and "NoNewPrivs:\\t1" in status
    return powerless and os.getuid() != 0
""",
    "no further namespaces": """
import subprocess
def probe():
    return subprocess.run(["unshare", "--user", "true"], capture_output=True).returncode != 0
""",
}


@dataclass(frozen=True)
class Finding:
    """What one probe found.

    Attributes:
        name: What should hold.
        holds: Whether it does.
        advice: What to do if it does not.
    """

    name: str
    holds: bool
    advice: str = ""


def examine(limits: Limits | None = None) -> Iterator[Finding]:
    """Start sandboxes and try what they should not allow; yields each finding."""
    allowed = replace(limits or Limits(), cell_seconds=20)
    try:
        sandbox.refuse_without_sandbox()
        with Bridge(allowed):
            yield Finding("a sandbox starts", holds=True)
    except (InputError, SandboxFailed) as error:
        advice = str(error) if isinstance(error, InputError) else USERNS
        yield Finding("a sandbox starts", holds=False, advice=advice)
        return
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        name = f"segedu-doctor-{server.getsockname()[1]}"
        local.bind(f"\0{name}")
        local.listen()
        given = _given(allowed, server.getsockname()[1], name)
        for title, source in PROBES.items():
            yield Finding(
                title, _try(allowed, given + source), "see `man bwrap`; do not grade here"
            )


def _given(limits: Limits, port: int, name: str) -> str:
    """The values that probes use, as code."""
    secrets = [str(Path.home() / part) for part in (".ssh", ".bashrc", ".config", ".profile")]
    values = {
        "PORT": port,
        "NAME": name,
        "PROCESSES": limits.processes,
        "MEMORY": int(limits.memory_gb * 2**30),
        "FILE_MB": limits.file_mb,
        "SECRETS": [*secrets, "/etc/passwd", "/etc/shadow", str(Path.cwd() / "pyproject.toml")],
        "PREFIX": sys.prefix,
    }
    return "".join(f"{key} = {value!r}\n" for key, value in values.items())


def _try(limits: Limits, source: str) -> bool:
    try:
        with Bridge(limits) as bridge:
            bridge.run(source)
            return bridge.evaluate("probe()", {}) is True
    except Ended as end:
        return end.why == "crash"  # ended by a limit
