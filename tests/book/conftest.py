import functools
import json
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "book" / "html"
BROWSE = Path(__file__).with_name("browse.mjs")


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def site():
    """The folder of the built site."""
    if not (SITE / "index.html").is_file():
        pytest.skip("the site is not built; `make book` builds it")
    return SITE


@pytest.fixture(scope="session")
def browse(site):
    """Visit pages in Chromium and say what was met there: see browse.mjs."""
    if not (shutil.which("chromium") and shutil.which("node")):
        pytest.skip("needs Node.js and Chromium; .ci/run installs them")
    handler = functools.partial(Quiet, directory=site)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_port}"

    def visit(paths, *, width=1440, scheme="light"):
        command = ["node", str(BROWSE), origin, str(width), scheme, *paths]
        run = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    yield visit
    server.shutdown()
    server.server_close()
