"""Every chapter's first cell, run to its end in fresh virtual environments that stand for Colab's.

The cell's own command is run. Git is told to fetch the repository from this machine, pip builds its
wheel, and what it depends on comes from wherever pip is configured to look. What Colab has already
is stood in for by empty packages of the same names and versions, but for numpy, which is real: so
pip meets Colab's versions, and torch costs nothing. The cell is the same in every chapter. One
chapter's therefore installs, and all of them run before and after it.
"""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "course").glob("[0-9]*.ipynb"))
UNREACHED = ("NewConnectionError", "NameResolutionError")  # what pip says then
WHEEL = (".gitignore", "LICENSE", "LICENSE-TEXT", "README.md", "pyproject.toml", "data", "segedu")

# Of Colab's runtime 2026.01 (googlecolab/backend-info), what segedu and its chapters depend on.
COLAB = {
    "cloudpickle": "3.1.2",
    "ipywidgets": "7.7.1",
    "matplotlib": "3.10.0",
    "numpy": "2.0.2",
    "pillow": "11.3.0",
    "pooch": "1.8.2",
    "psutil": "5.9.5",
    "pycocotools": "2.0.11",
    "pyyaml": "6.0.3",
    "requests": "2.32.4",
    "scikit-image": "0.25.2",
    "scikit-learn": "1.6.1",
    "scipy": "1.16.3",
    "tensorboard": "2.19.0",
    "tifffile": "2026.1.14",
    "tqdm": "4.67.1",
    "transformers": "4.57.6",
    "typer": "0.21.1",
}
TORCH = {
    "3.11": {"torch": "2.6.0+cu124", "torchvision": "0.21.0+cu124"},  # runtime 2025.07
    "3.12": {"torch": "2.9.0+cu126", "torchvision": "0.24.0+cu126"},  # runtime 2026.01
}

# Run cells as a kernel would, each in a namespace; "forbid" makes any process they start an error.
RUN = """
import json, subprocess, sys
from types import ModuleType

where, processes, *cells = json.load(sys.stdin)
if where == "colab":
    sys.modules["google.colab"] = ModuleType("google.colab")
if processes == "forbid":
    subprocess.Popen = None
for cell in cells:
    exec(cell, {})
if processes == "allow":
    import segedu
    from segedu.palette import class_colours
    print(json.dumps([segedu.__file__, class_colours(3).tolist()]))
"""


def first_cell(path):
    cells = nbformat.read(path, as_version=4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


@dataclass
class Colab:
    """A fresh virtual environment that stands for Colab's, with Colab's packages.

    Attributes:
        python: Its interpreter.
        content: The folder that cells are run in, `/content` on Colab.
        git: What tells git where the repository is served.
    """

    python: Path
    content: Path
    git: dict[str, str]

    def run(self, where, processes, cells):
        """Run the cells in one new process and give what was printed."""
        given = json.dumps([where, processes, *cells])
        return self._call("-c", RUN, input=given, cwd=self.content)

    def versions(self):
        listed = json.loads(self._call("-m", "pip", "list", "--format=json"))
        return {each["name"].lower(): each["version"] for each in listed}

    def check(self):
        return self._call("-m", "pip", "check")

    def install(self, *packages):
        self._call("-m", "pip", "install", "--quiet", "--no-deps", *map(str, packages))

    def files(self, *packages):
        """The bytes, as SHA-256, and the time of each file of these packages, by its path."""
        site = Path(
            self._call("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        )
        found = [p for name in packages for p in site.glob(f"{name}[.-]*/*")]
        found += [p for name in packages for p in (site / name).rglob("*.py")]
        return {
            p: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in found
        }

    def _call(self, *arguments, **options):
        command = [str(self.python), *arguments]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        run = subprocess.run(
            command,
            env={**kept, **self.git},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            **options,
        )
        if run.returncode and any(each in run.stderr for each in UNREACHED):
            pytest.skip("what the chapters need cannot be fetched: no package index is reached")
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout


def interpreter(wanted):
    """A Python of that version on this machine, or None."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    named = [sys._base_executable, shutil.which(f"python{wanted}")]
    for candidate in [*named, *sorted(pyenv.glob(f"{wanted}.*/bin/python"))]:
        if not candidate:
            continue
        ask = [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        run = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=60)
        if run.returncode == 0 and run.stdout.strip() == wanted:
            return candidate
    return None


def stand_in(name, version, folder):
    """An empty wheel that says it is that package."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}/__init__.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return wheel


def git(*arguments, cwd):
    who = ["-c", "user.name=segedu", "-c", "user.email=segedu@localhost"]
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout


def as_repository(folder):
    """A bare repository with the files of the working tree that a wheel is built from."""
    tree = folder / "tree"
    for name in git("ls-files", "-z", "--", *WHEEL, cwd=ROOT).split("\0")[:-1]:
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    git("init", "--quiet", cwd=tree)
    git("add", "--all", "--force", cwd=tree)
    git("commit", "--quiet", "--no-gpg-sign", "--message", "as it is", cwd=tree)
    git("clone", "--quiet", "--bare", str(tree), str(folder / "served" / "segedu.git"), cwd=folder)
    git("repack", "-adq", cwd=folder / "served" / "segedu.git")
    git("update-server-info", cwd=folder / "served" / "segedu.git")
    return folder / "served"


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def git_settings(tmp_path_factory):
    """What makes git fetch the repository's address from this machine."""
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        pytest.skip("needs git, and a clone of the repository")
    served = as_repository(tmp_path_factory.mktemp("repository"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    handler = functools.partial(Quiet, directory=served)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        here = f"http://127.0.0.1:{server.server_port}/segedu.git"
        yield {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{here}.insteadOf",
            "GIT_CONFIG_VALUE_0": project["urls"]["Repository"],
        }
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", params=TORCH)
def ran(request, git_settings, tmp_path_factory):
    """What was there before, and what happened: away from Colab, on Colab, and on Colab again."""
    python = interpreter(request.param)
    if python is None:
        pytest.skip(f"there is no Python {request.param} on this machine")
    folder = tmp_path_factory.mktemp("colab")
    subprocess.run([str(python), "-m", "venv", str(folder / "venv")], check=True, timeout=120)
    (folder / "content").mkdir()
    bin_folder = "Scripts" if os.name == "nt" else "bin"
    colab = Colab(folder / "venv" / bin_folder / "python", folder / "content", git_settings)
    has = {**COLAB, **TORCH[request.param]}
    wheels = [stand_in(name, version, folder) for name, version in has.items() if name != "numpy"]
    colab.install(*wheels, f"numpy=={has['numpy']}")
    cells = [first_cell(path) for path in CHAPTERS]

    found = {"colab": colab, "has": has, "torch": colab.files("torch", "torchvision")}
    found["away"] = colab.run("away", "forbid", cells), list(colab.content.iterdir())
    found["first"] = colab.run("colab", "allow", cells[:1])
    found["after"] = colab.versions()
    (colab.content / "constraints.txt").unlink()
    found["again"] = colab.run("colab", "forbid", cells), list(colab.content.iterdir())
    return found


def test_every_chapter_has_the_same_first_cell():
    assert len(CHAPTERS) == 22
    assert len({first_cell(path) for path in CHAPTERS}) == 1


@pytest.mark.slow
def test_away_from_colab_no_first_cell_does_anything(ran):
    assert ran["away"] == ("", [])


@pytest.mark.slow
def test_on_colab_the_first_cell_makes_segedu_importable_from_where_packages_are(ran):
    where, colours = json.loads(ran["first"].splitlines()[-1])
    assert Path(where).is_relative_to(ran["colab"].python.parents[1])
    assert len(colours) == 3


@pytest.mark.slow
def test_torch_and_torchvision_keep_their_versions_and_their_files(ran):
    for name in ("torch", "torchvision"):
        assert ran["after"][name] == ran["has"][name]
    assert len(ran["torch"]) >= 8
    assert ran["colab"].files("torch", "torchvision") == ran["torch"]


@pytest.mark.slow
def test_what_colab_has_stays_but_for_transformers_of_which_chapter_15_needs_a_newer_one(ran):
    moved = {name for name, version in ran["has"].items() if ran["after"][name] != version}
    assert moved == {"transformers"}


@pytest.mark.slow
def test_afterwards_every_package_has_what_it_requires(ran):
    assert "No broken requirements found" in ran["colab"].check()


@pytest.mark.slow
def test_with_segedu_there_no_first_cell_of_any_chapter_does_anything(ran):
    assert ran["again"] == ("", [])
