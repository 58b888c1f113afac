"""Downloads that go on where they stopped, for pooch."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from tqdm import tqdm

from segedu.errors import InputError

ATTEMPTS = 3
"""How often a download is taken up again after the connection broke."""
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
"""How requests says that a connection broke."""
CHUNK = 1 << 14
"""Bytes that are written at once; a chunk that the connection breaks in is lost."""
TIMEOUT = (10, 60)
"""Seconds to wait for a connection, and for the next bytes."""


@dataclass(frozen=True)
class Resuming:
    """A pooch downloader that keeps what has arrived, and asks the server only for the rest.

    What has arrived is kept in `folder`, in a file `.partial` named after the address. A server
    that cannot send a part sends all of it, and the file starts again from nothing.

    Attributes:
        folder: Where unfinished downloads are kept.
        session: Keeps connections open from one file to the next.
        most: The number of bytes beyond which a download is given up.
        progress: Whether to show a bar.
    """

    folder: Path
    session: requests.Session
    most: int
    progress: bool = False

    def __call__(self, url: str, output_file: str, _pooch: Any = None) -> None:
        """Download `url` to `output_file`; pooch calls it.

        Raises:
            requests.RequestException: If the server refuses, or the connection breaks too often.
            InputError: If there are more than `most` bytes.
        """
        partial = self.folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.partial"
        broken = 0
        while not self._took_up(url, partial, last=broken == ATTEMPTS - 1):
            broken += 1
        partial.replace(output_file)

    def _took_up(self, url: str, partial: Path, *, last: bool) -> bool:
        """Whether all of it is there now; in the last attempt a broken connection is an error."""
        try:
            self._take_up(url, partial)
        except BROKEN:
            if last:
                raise
            return False
        return True

    def _take_up(self, url: str, partial: Path) -> None:
        """Bring `partial` from the bytes that it has to all of them."""
        have = partial.stat().st_size if partial.exists() else 0
        wanted = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        with self.session.get(url, headers=wanted, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                if answer.headers.get("Content-Range") != f"bytes */{have}":
                    partial.unlink()
                    raise requests.ConnectionError("the server's file has changed")
                return
            answer.raise_for_status()
            if not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                have = 0
            self._append(answer, partial, have)

    def _append(self, answer: requests.Response, partial: Path, have: int) -> None:
        """Write what the server sends after the first `have` bytes of `partial`."""
        length = answer.headers.get("Content-Length")
        whole = have + int(length) if length else None
        bar = tqdm(total=whole, initial=have, unit="B", unit_scale=True, disable=not self.progress)
        with bar, partial.open("ab" if have else "wb") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                have += len(chunk)
                if have > self.most:
                    break
        if have > self.most:
            partial.unlink()
            raise InputError(f"sends more than the {self.most:,} bytes expected at most")
        if whole is not None and have < whole:
            raise requests.ConnectionError("the connection broke")
