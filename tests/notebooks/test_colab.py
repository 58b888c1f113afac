import subprocess
import sys
from importlib import metadata, util
from types import ModuleType

import pytest

from segedu.errors import InputError
from segedu.notebooks.colab import badge, bootstrap

REPOSITORY = "https://github.com/someone/course"


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """Runs of pip that the cell asks for; none is made."""
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append((command, check)))
    return asked


def on_colab(monkeypatch, *, installed):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(util, "find_spec", lambda name: name if installed else None)
    versions = {"torch": "2.6.0+cu124", "torchvision": "0.21.0+cu124"}
    monkeypatch.setattr(metadata, "version", versions.__getitem__)


def test_anywhere_but_on_colab_the_first_cell_does_nothing(commands, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(util, "find_spec", lambda _: None)
    exec(bootstrap(REPOSITORY), {})
    assert commands == []
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_on_colab_it_installs_segedu_and_keeps_the_torch_that_is_there(
    commands, monkeypatch, tmp_path
):
    on_colab(monkeypatch, installed=False)
    exec(bootstrap(REPOSITORY), {})
    [(command, check)] = commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[-3:] == [
        "--constraint",
        "constraints.txt",
        f"segedu[chapters] @ git+{REPOSITORY}",
    ]
    assert check
    pins = (tmp_path / "constraints.txt").read_text()
    assert pins == "torch==2.6.0+cu124\ntorchvision==0.21.0+cu124\n"


def test_a_second_run_on_colab_installs_nothing(commands, monkeypatch):
    on_colab(monkeypatch, installed=True)
    exec(bootstrap(REPOSITORY), {})
    assert commands == []


def test_the_first_cell_is_no_longer_than_any_other_may_be():
    assert len(bootstrap(REPOSITORY).splitlines()) <= 15


@pytest.mark.parametrize("address", [REPOSITORY, REPOSITORY + "/", REPOSITORY + ".git"])
def test_the_badge_opens_the_chapter_of_the_repository(address):
    page = "https://colab.research.google.com/github/someone/course/blob/main/course/01_a.ipynb"
    assert badge("01_a", address).endswith(f"({page})")


def test_a_repository_that_colab_cannot_open_is_refused():
    with pytest.raises(InputError, match=r"expected https://github\.com/OWNER/NAME"):
        badge("01_a", "https://example.org/someone/course")
