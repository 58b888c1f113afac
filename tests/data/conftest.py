"""Fixtures for tests of data sets: the real sets where there are any, and writers of tiny fakes."""

import hashlib
import lzma
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from loopback import COMMIT, Loopback
from PIL import Image

from segedu.data import manifests

Writer = Callable[..., Path]


@pytest.fixture
def write_image() -> Writer:
    """Writes an array as an image file, and the folders above it."""

    def write(path: Path, pixels: object, **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path, **options)
        return path

    return write


@pytest.fixture
def write_pair(write_image: Writer) -> Callable[[Path, Path, object], None]:
    """Writes an image of one colour, and a mask of the given numbers, of one size."""

    def write(image: Path, mask: Path, stored: object) -> None:
        stored = np.asarray(stored)
        write_image(image, np.full((*stored.shape, 3), 51))
        write_image(mask, stored)

    return write


@pytest.fixture
def write_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., manifests.Manifest]:
    """Writes a manifest for files given as bytes, in place of the real ones."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    monkeypatch.setattr(manifests, "manifest_folder", lambda: folder)

    def write(
        name: str,
        files: Mapping[str, bytes],
        *,
        inside: str = "data",
        place: str = ".",
        single: bytes | None = None,
    ) -> manifests.Manifest:
        lines = "".join(
            f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files)
        ).encode()
        (folder / f"{name}.sha256.xz").write_bytes(lzma.compress(lines))
        text = f"""
            title = "Fake"
            licence = "free"
            citation = "nobody"
            files = {len(files)}
            bytes = {sum(map(len, files.values()))}
            digest = "{hashlib.sha256(lines).hexdigest()}"
            [archive]
            repository = "owner/fake"
            commit = "{COMMIT}"
            folder = "{inside}"
            place = "{place}"
        """
        if single is not None:
            text += f"""
            [[single]]
            repository = "other/more"
            commit = "{COMMIT}"
            path = "far/extra.json"
            place = "extra.json"
            bytes = {len(single)}
            sha256 = "{hashlib.sha256(single).hexdigest()}"
            note = "made up"
            """
        (folder / f"{name}.toml").write_text(text)
        return manifests.manifest(name)

    return write


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A web server on this machine alone."""
    with Loopback() as running:
        yield running
