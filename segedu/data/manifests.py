"""What each real data set consists of: where it comes from and the digest of every file.

No set is part of segedu; `data/NAME.toml` and `data/NAME.sha256.xz` describe it. Needs no torch.
"""

import hashlib
import lzma
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from segedu.errors import InputError


@dataclass(frozen=True)
class Archive:
    """A folder of a public repository, at one commit.

    Attributes:
        repository: OWNER/NAME on GitHub.
        commit: All 40 digits.
        folder: The folder in the repository; "." is all of it.
        place: Where its files go, below the set's own folder.
    """

    repository: str
    commit: str
    folder: str
    place: str


@dataclass(frozen=True)
class Single:
    """One file of another repository that belongs to the set as well.

    Attributes:
        repository: OWNER/NAME on GitHub.
        commit: All 40 digits.
        path: The file in the repository.
        place: Its path below the set's own folder.
        bytes: Its size.
        sha256: Its digest.
        note: How that digest is known.
    """

    repository: str
    commit: str
    path: str
    place: str
    bytes: int
    sha256: str
    note: str


@dataclass(frozen=True)
class Manifest:
    """One data set.

    Attributes:
        name: Its name in the catalogue.
        title: One line that says what it shows.
        licence: What one may do with it, in a few words.
        citation: What to cite.
        archive: Where all its files but `singles` come from.
        archive_files: How many files the archive's folder has.
        archive_bytes: Their size together.
        digest: The SHA-256 of the lines of `NAME.sha256.xz`.
        singles: Files from elsewhere.
        list_file: `NAME.sha256.xz`, the SHA-256 of each file of the archive.
    """

    name: str
    title: str
    licence: str
    citation: str
    archive: Archive
    archive_files: int
    archive_bytes: int
    digest: str
    singles: tuple[Single, ...]
    list_file: Path

    @cached_property
    def listed(self) -> dict[str, str]:
        """The SHA-256 of each file of the archive, by its path in the archive's folder.

        Raises:
            InputError: If the list of files is not the one that the manifest was made for.
        """
        lines = lzma.decompress(self.list_file.read_bytes())
        if hashlib.sha256(lines).hexdigest() != self.digest:
            raise InputError(
                f"{self.list_file}: is not the list that {self.name}.toml names; install segedu "
                "again"
            )
        return {line[66:]: line[:64] for line in lines.decode().splitlines()}

    @property
    def files(self) -> int:
        """How many files the whole set has."""
        return self.archive_files + len(self.singles)

    @property
    def bytes(self) -> int:
        """The size of the whole set."""
        return self.archive_bytes + sum(single.bytes for single in self.singles)

    @cached_property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of every file, by its path below the set's own folder."""
        place = PurePosixPath(self.archive.place)
        return {
            **{str(place / path): sha256 for path, sha256 in self.listed.items()},
            **{single.place: single.sha256 for single in self.singles},
        }


def manifest(name: str) -> Manifest:
    """The manifest of the set `name`, read from the folder `manifest_folder`."""
    folder = manifest_folder()
    stored = tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
    return Manifest(
        name=name,
        title=stored["title"],
        licence=stored["licence"],
        citation=stored["citation"],
        archive=Archive(**stored["archive"]),
        archive_files=stored["files"],
        archive_bytes=stored["bytes"],
        digest=stored["digest"],
        singles=tuple(Single(**single) for single in stored.get("single", [])),
        list_file=folder / f"{name}.sha256.xz",
    )


def manifest_folder() -> Path:
    """Where the manifests are: in the installed package, or in the checkout's `data/`."""
    package = Path(__file__).parents[1]
    installed = package / "_data"
    return installed if installed.is_dir() else package.parent / "data"
