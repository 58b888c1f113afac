import hashlib
import stat
import zipfile

import pytest

from segedu.data.unpack import unpack
from segedu.errors import InputError

FILES = {"a.txt": b"first", "deep/b.txt": b"second"}


def digests(files):
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


@pytest.fixture
def archive(tmp_path):
    """Writes an archive of the given entries, (name or ZipInfo, content)."""

    def write(*entries):
        path = tmp_path / "archive.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, content in entries:
                opened.writestr(name, content)
        return path

    return write


GOOD = [("top-1/data/a.txt", b"first"), ("top-1/data/deep/b.txt", b"second")]


def run(archive, tmp_path, *, files=FILES, folder="data", most=100):
    into = tmp_path / "out"
    unpack(archive, into, folder=folder, digests=digests(files), most=most)
    return {p.relative_to(into).as_posix(): p.read_bytes() for p in into.rglob("*") if p.is_file()}


def test_only_the_expected_files_of_the_folder_are_written(archive, tmp_path):
    path = archive(
        ("top-1/", b""),
        ("top-1/data/", b""),
        *GOOD,
        ("top-1/data/more.txt", b"?"),
        ("top-1/a.txt", b"outside"),
        ("top-1/database/a.txt", b"not it"),
    )
    assert run(path, tmp_path) == FILES


def test_the_whole_repository_may_be_the_folder(archive, tmp_path):
    path = archive(("repo.-c0/x.txt", b"x"), ("repo.-c0/y/z.txt", b"z"))
    expected = {"x.txt": b"x", "y/z.txt": b"z"}
    assert run(path, tmp_path, files=expected, folder=".") == expected


@pytest.mark.parametrize(
    "name",
    ["top/data/../../../evil.txt", "/etc/evil.txt", "top//evil.txt", "../evil.txt", "top/./evil"],
)
def test_a_name_that_leaves_the_archive_is_refused(archive, tmp_path, name):
    with pytest.raises(InputError, match="names a place outside itself"):
        run(archive(*GOOD, (name, b"evil")), tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["top/..\\..\\evil.txt", "C:/evil.txt"])
def test_a_name_that_leaves_the_archive_on_windows_is_refused(archive, tmp_path, name):
    with pytest.raises(InputError, match="no plain path"):
        run(archive(*GOOD, (name, b"evil")), tmp_path)


def test_a_link_is_refused(archive, tmp_path):
    link = zipfile.ZipInfo("top-1/data/link")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(InputError, match="holds a link, not a file: top-1/data/link"):
        run(archive(*GOOD, (link, b"/etc/passwd")), tmp_path)


def test_a_plain_file_with_its_rights_is_no_link(archive, tmp_path):
    plain = zipfile.ZipInfo("top-1/data/c.txt")
    plain.external_attr = (stat.S_IFREG | 0o644) << 16
    assert run(archive((plain, b"c")), tmp_path, files={"c.txt": b"c"}) == {"c.txt": b"c"}


def test_two_files_that_differ_only_in_case_are_refused(archive, tmp_path):
    with pytest.raises(InputError, match=r"two files of one name: top-1/data/A\.TXT"):
        run(archive(*GOOD, ("top-1/data/A.TXT", b"other")), tmp_path)


def test_more_bytes_than_expected_are_never_written(archive, tmp_path):
    bomb = b"\0" * 10_000_000
    path = archive(("top/data/a.txt", bomb))
    assert path.stat().st_size < 20_000
    with pytest.raises(InputError, match=r"too many bytes: top/data/a\.txt"):
        run(path, tmp_path, files={"a.txt": bomb}, most=70_000)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_limit_is_for_all_files_together(archive, tmp_path):
    assert run(archive(*GOOD), tmp_path, most=11) == FILES
    with pytest.raises(InputError, match=r"too many bytes: top-1/data/deep/b\.txt"):
        run(archive(*GOOD), tmp_path, most=10)


def test_wrong_bytes_are_named_and_not_kept(archive, tmp_path):
    path = archive(GOOD[0], ("top-1/data/deep/b.txt", b"SECOND"))
    with pytest.raises(InputError, match=r"top-1/data/deep/b\.txt: wrong checksum"):
        run(path, tmp_path)
    assert not (tmp_path / "out/deep/b.txt").exists()
    assert (tmp_path / "out/a.txt").read_bytes() == b"first"


def test_a_file_that_is_not_in_the_archive_is_named(archive, tmp_path):
    with pytest.raises(InputError, match=r"the archive has no deep/b\.txt"):
        run(archive(GOOD[0]), tmp_path)


def test_a_broken_archive_is_refused(archive, tmp_path):
    path = archive(*GOOD)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="cannot be unpacked"):
        run(path, tmp_path)
