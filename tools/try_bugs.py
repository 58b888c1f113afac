"""Put each bug of tests/bugs.txt into a copy of the project; report those no test notices.

A line of bugs.txt is `file | code | bug`: the first occurrence of `code` in `file` is replaced.
For each bug only the tests of its module run: `segedu/data/scenes.py` has
`tests/data/test_scenes.py`, and lines of the form `@ file | test file ...` name others.

    python tools/try_bugs.py            all bugs
    python tools/try_bugs.py losses     those whose line contains "losses"
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
COPIED = ("segedu", "tests", "data", "course", "book", "tools", "pyproject.toml", "Makefile")


@dataclass(frozen=True)
class Bug:
    """One line of bugs.txt: the first `code` in `file` becomes `instead`."""

    file: str
    code: str
    instead: str


def main(chosen: str = "") -> int:
    """Try the chosen bugs; returns how many went unnoticed."""
    lines = (ROOT / "tests" / "bugs.txt").read_text(encoding="utf-8").splitlines()
    bugs = [Bug(*x.split(" | ")) for x in lines if x and x[0] not in "#@" and chosen in x]
    tests = dict(tests_of(line) for line in lines if line.startswith("@"))
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_project(Path(folder))
        patience = {}
        for file in sorted({bug.file for bug in bugs}):
            targets = tests.get(file) or [default_test(file)]
            start = time.monotonic()
            if notices(copy, targets):
                sys.exit(f"the tests of {file} fail without any bug: {' '.join(targets)}")
            patience[file] = targets, 20 + 5 * (time.monotonic() - start)
        unnoticed = 0
        for bug in tqdm(bugs, disable=None):
            if not notices_bug(copy, bug, *patience[bug.file]):
                unnoticed += 1
                print("unnoticed:", bug.file, bug.code, bug.instead, sep="  ", flush=True)
    print(f"{len(bugs) - unnoticed} of {len(bugs)} bugs noticed")
    return unnoticed


def copy_project(folder: Path) -> Path:
    """A copy to put bugs in, so that the project itself is never touched."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
            )
        else:
            shutil.copy(source, folder)
    return folder


def tests_of(line: str) -> tuple[str, list[str]]:
    """What a line `@ file | tests` says."""
    file, tests = line.removeprefix("@ ").split(" | ")
    return file, tests.split()


def default_test(file: str) -> str:
    """Where the tests of a module are by the rule of the house."""
    module = Path(file).relative_to("segedu")
    return str(Path("tests") / module.parent / f"test_{module.name}")


def notices_bug(copy: Path, bug: Bug, tests: list[str], patience: float) -> bool:
    """Whether a test fails, or takes too long, while the bug is in."""
    path = copy / bug.file
    sound = path.read_text(encoding="utf-8")
    if bug.code not in sound:
        sys.exit(f"{bug.file} no longer has: {bug.code}")
    path.write_text(sound.replace(bug.code, bug.instead, 1), encoding="utf-8")
    try:
        return notices(copy, tests, patience)
    finally:
        path.write_text(sound, encoding="utf-8")


def notices(copy: Path, tests: list[str], patience: float | None = None) -> bool:
    """Whether the tests of `copy` fail, or take longer than `patience` seconds."""
    command = [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider", *tests]
    env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("SEGEDU_DATA", None)
    try:
        run = subprocess.run(
            command, cwd=copy, env=env, capture_output=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    return run.returncode != 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) > 0)
