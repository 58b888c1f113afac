"""Chapters in the real JupyterLab, in a real browser, as a reader has them."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LAB = Path(__file__).with_name("lab.mjs")
TOKEN = "a-token-of-this-test"

# Chapter 01 has no slider of its own: one is put at its end, as a reader would.
SLIDER = "from segedu import widgets\n\nwidgets.explore_overlap()"


@pytest.fixture
def lab(tmp_path):
    """JupyterLab on a folder of its own; gives its address and the folder."""
    if not (shutil.which("chromium") and shutil.which("node")):
        pytest.skip("needs Node.js and Chromium; .ci/run installs them")
    if not (ROOT / "book" / "node_modules" / "puppeteer-core").is_dir():
        pytest.skip("puppeteer-core is not here; `make book` fetches it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "course"
    folder.mkdir()
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", f"--port={port}"]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--IdentityProvider.token={TOKEN}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            origin = f"http://127.0.0.1:{port}"
            _wait_for(f"{origin}/api/status?token={TOKEN}")
            yield origin, folder
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(address, seconds=60):
    until = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)
        else:
            return


@pytest.mark.slow
def test_a_reader_runs_chapter_01_and_moves_a_slider(lab, tmp_path):
    origin, folder = lab
    notebook = nbformat.read(ROOT / "course" / "01_first_segmentation.ipynb", as_version=4)
    smoke = yaml.safe_load((ROOT / "course" / "parameters" / "smoke.yml").read_text())
    values = smoke["01_first_segmentation"]
    place = next(
        i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", [])
    )
    code = papermill.translators.PythonTranslator.codify(values)
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(code))
    notebook.cells.append(nbformat.v4.new_code_cell(SLIDER))
    nbformat.write(notebook, folder / "01.ipynb")
    command = ["node", str(LAB), origin, TOKEN, "01.ipynb", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    assert seen["errors"] == []
    assert seen["ran"] == seen["cells"] > 50
    assert seen["changed"]
    assert seen["picture"]["width"] > 200
    assert seen["picture"]["colours"] > 10
