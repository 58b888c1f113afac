"""A process that can reach nothing: no network, no files but what it needs to run, bounded in all.

bubblewrap makes new namespaces for users, mounts, processes, network and IPC, and closes the door
to further ones; `prlimit` bounds memory, processes and files. A grader that is root first becomes a
user of no rights in a mount namespace that shows it only what the sandbox will have: root's limit
on processes is not enforced, and its files are behind folders that others cannot enter.

Source: bubblewrap 0.8, bwrap(1); options apply in their order.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import segedu
from segedu.errors import InputError
from segedu.grading.assignment import Limits

HOME = "/tmp/home"
FIRST_USER = 2_000_000_000
"""From here on are the user ids of sandboxes that root starts; no real user has them."""

_starts = itertools.count()

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def refuse_without_sandbox() -> None:
    """Refuse to go on where there is no bubblewrap.

    Raises:
        InputError: It says what to do.
    """
    for program, package in (("bwrap", "bubblewrap"), ("prlimit", "util-linux")):
        if shutil.which(program) is None:
            raise InputError(
                f"{program} is not installed, and students' code runs only in a sandbox; install "
                f"the package {package} (Linux only), then look at what `segedu doctor` says"
            )


def refuse_unsafe_in_ci() -> None:
    """Refuse to run students' code without a sandbox where nobody watches.

    Raises:
        InputError: It says what to do.
    """
    if os.environ.get("CI"):
        raise InputError(
            "--unsafe-no-sandbox is refused where CI is set; install bubblewrap on the runner, or "
            "grade on a machine of your own"
        )


def visible() -> list[Path]:
    """What of this machine a sandbox can read: the system's programs, this Python, segedu."""
    needed = [Path("/usr"), Path(sys.base_prefix), Path(sys.prefix), Path(segedu.__file__).parent]
    found: list[Path] = []
    for path in (p.resolve() for p in needed):
        if not any(other == path or other in path.parents for other in found):
            found.append(path)
    return found


def command(
    program: Sequence[str],
    limits: Limits,
    *,
    writable: Sequence[Path] = (),
    readable: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    boxed: bool = True,
) -> list[str]:
    """The command that runs `program` in a sandbox.

    Args:
        program: What to run, with its arguments.
        limits: Memory, processes and file sizes.
        writable: Folders it may write to, seen at their own paths.
        readable: Further files and folders it may read.
        environment: Its variables, besides a few fixed ones.
        boxed: If False there is no sandbox: the program can do all that this user can, and only
            the limits on memory, file sizes and processor time hold, where the system has them.
    """
    variables = {**_environment(), **(environment or {})}
    if not boxed:
        return _bare(program, limits, variables)
    size = str(limits.file_mb * 2**20)
    shown = [*visible(), *(path.resolve() for path in readable)]
    inside = [
        *("bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"),
        *("--new-session", "--clearenv", "--cap-drop", "ALL", "--hostname", "sandbox"),
        *_system(),
        *("--proc", "/proc", "--dev", "/dev", "--size", size, "--tmpfs", "/dev/shm"),
        *("--size", size, "--tmpfs", "/tmp", "--dir", HOME),
        *_binds(shown, "--ro-bind"),
        *_binds(writable, "--bind"),
        *_variables(variables),
        *("--remount-ro", "/", "--chdir", HOME, "--"),
    ]
    whole = [*_bounded(limits, f"--nproc={limits.processes}"), *inside, *program]
    return [*_as_nobody(shown, writable), *whole] if os.geteuid() == 0 else whole


def start(full_command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a sandbox; its standard input and output are pipes, what it says besides is dropped."""
    return subprocess.Popen(
        full_command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={"PATH": os.environ.get("PATH", os.defpath)},
        cwd="/",
    )


def _bounded(limits: Limits, *more: str) -> list[str]:
    """What goes before a command to bound what it uses."""
    return [
        "prlimit",
        f"--as={int(limits.memory_gb * 2**30)}",
        f"--fsize={limits.file_mb * 2**20}",
        f"--cpu={int(2 * limits.notebook_seconds) + 10}",
        "--nofile=256",
        "--core=0",
        *more,
        "--",
    ]


def _bare(program: Sequence[str], limits: Limits, variables: Mapping[str, str]) -> list[str]:
    """The command without a sandbox. A user's other processes would count among its own."""
    folder = tempfile.gettempdir()
    bounded = _bounded(limits) if shutil.which("prlimit") else []
    told = {**variables, "HOME": folder, "IPYTHONDIR": str(Path(folder, ".ipython"))}
    given = [f"{name}={value}" for name, value in told.items()]
    there = ["sh", "-c", 'cd "$0" && exec "$@"', folder]
    return [*bounded, "env", "-i", *given, *there, *program]


def _environment() -> dict[str, str]:
    variables = dict.fromkeys(THREADS, "1")
    return {
        **variables,
        "HOME": HOME,
        "PATH": f"{Path(sys.prefix) / 'bin'}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "IPYTHONDIR": f"{HOME}/.ipython",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "MALLOC_ARENA_MAX": "2",  # each thread would take 128 MB of addresses for its own
    }


def _system() -> list[str]:
    """The links that a system with all under /usr has in its root."""
    found = []
    for name in ("bin", "lib", "lib32", "lib64", "sbin"):
        path = Path("/", name)
        if path.is_symlink():
            found += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            found += ["--ro-bind", str(path), str(path)]
    read = [Path("/etc", name) for name in ("ld.so.cache", "alternatives")]
    return found + _binds([path for path in read if path.exists()], "--ro-bind")


def _binds(paths: Sequence[Path], option: str) -> list[str]:
    """Each path at its own place; the folders above it, made for it, can be entered by all."""
    found = []
    for path in paths:
        for parent in reversed(path.parents[:-1]):
            found += ["--perms", "0755", "--dir", str(parent)]
        found += [option, str(path), str(path)]
    return found


def _variables(environment: Mapping[str, str]) -> list[str]:
    return [part for item in environment.items() for part in ("--setenv", *item)]


def _unused_user() -> str:
    """A user id that no other sandbox has now: the limit on processes counts by user."""
    return str(FIRST_USER + os.getpid() % 2**21 * 64 + next(_starts) % 64)


def _as_nobody(readable: Sequence[Path], writable: Sequence[Path]) -> list[str]:
    """Root's first step: show only those paths, and become a user of no rights for good."""
    user = _unused_user()
    return [
        *("bwrap", "--unshare-pid", "--die-with-parent"),
        *_system(),
        *("--perms", "1777", "--tmpfs", "/tmp", "--bind", "/proc", "/proc"),
        *("--dev-bind", "/dev", "/dev"),
        *_binds(readable, "--ro-bind"),
        *_binds(writable, "--bind"),
        *("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"),
        *("--cap-add", "CAP_SETPCAP", "setpriv", "--reuid", user, "--regid", user),
        *(
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "--no-new-privs",
            "--pdeathsig",
            "KILL",
            "--",
        ),
    ]
