"""A headless Chromium that opens a page, and what the page did: its text, console, requests."""

import contextlib
import http.server
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom"),
)


@dataclass
class Counter:
    """A server on this machine, and the paths that it was asked for."""

    address: str
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def counting_server():
    counter = Counter("")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            counter.asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    counter.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield counter
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def opened(path):
    """The page's document after its scripts, if any, have run; and the lines of its console."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        run = subprocess.run(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", path.resolve().as_uri()],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    return run.stdout, [line for line in run.stderr.splitlines() if "CONSOLE" in line]
