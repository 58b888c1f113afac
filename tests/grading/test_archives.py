import io
import os
import stat
import struct
import zipfile

import pytest

from segedu.grading import archives
from segedu.grading.archives import Refused, in_folder, in_zip, on_disk, refuse_name


def zipped(*members, method=zipfile.ZIP_DEFLATED):
    """A zip of names, or of ZipInfos, with their contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def info(name, mode):
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = mode << 16
    return entry


def test_what_is_in_a_zip_is_listed_and_read():
    content = zipped(("a/", ""), ("a/b.ipynb", b"{}"), (info("c.txt", 0o100644), b"hello"))
    found = in_zip(content)
    assert [(f.name, f.size, f.read()) for f in found] == [
        ("a/b.ipynb", 2, b"{}"),
        ("c.txt", 5, b"hello"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "../x.ipynb",
        "a/../../x",
        "/etc/passwd",
        "C:/x",
        "C:x",
        "a\\..\\x",
        "tes\u202eipynb.exe",
        "a\u2066b",
        "a\x1bb",
        "a\nb",
        "\udcff.ipynb",
        "a" * 401,
        "/".join("a" * 21),
        "",
    ],
)
def test_names_that_lead_elsewhere_or_hide_something_are_refused(name):
    with pytest.raises(Refused, match="the name") as caught:
        refuse_name(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["a/b c.ipynb", "..a.ipynb", "作业.ipynb", "é (1).ipynb", "it's.ipynb"]
)
def test_unusual_names_are_no_fault(name):
    refuse_name(name)


@pytest.mark.parametrize("name", ["../x.ipynb", "/tmp/x.ipynb", "x\x00.ipynb"])
def test_a_zip_that_would_write_elsewhere_is_refused(name):
    entry = zipfile.ZipInfo("x" * len(name))
    content = zipped((entry, b"{}")).replace(b"x" * len(name), name.encode())
    with pytest.raises(Refused, match="the name"):
        in_zip(content)


@pytest.mark.parametrize(
    ("kind", "said"), [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "pipe"), (stat.S_IFBLK, "device")]
)
def test_links_and_devices_in_a_zip_are_refused(kind, said):
    with pytest.raises(Refused, match=f"is a {said}"):
        in_zip(zipped((info("x.ipynb", kind | 0o777), b"/etc/passwd")))


def test_encrypted_members_and_unusual_methods_are_refused():
    content = bytearray(zipped(("x.ipynb", b"{}")))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(Refused, match="encrypted"):
        in_zip(bytes(content))
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(Refused, match="unusual"):
            in_zip(zipped(("x.ipynb", b"{}"), method=method))


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    monkeypatch.setattr(archives, "_read_member", None)
    with pytest.raises(Refused, match="200 times its size"):
        in_zip(zipped(("x.ipynb", bytes(2 * 2**20))))
    monkeypatch.setattr(archives, "LARGEST_FILE", 1000)
    with pytest.raises(Refused, match="has 1001 bytes; at most 1000"):
        in_zip(zipped(("x.ipynb", os.urandom(1001))))
    monkeypatch.setattr(archives, "LARGEST_TOTAL", 1500)
    with pytest.raises(Refused, match="1600 bytes; at most 1500"):
        in_zip(zipped(("a", os.urandom(800)), ("b", os.urandom(800))))


def test_a_member_that_lies_about_its_size_gives_no_more_than_it_said():
    content = bytearray(zipped(("x.ipynb", bytes(3 * 2**20))))
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(mark) + place, 10)
    found = in_zip(bytes(content))
    with pytest.raises(Refused, match="broken"):
        assert len(found[0].read()) <= 10


def test_too_many_files_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    content = zipped(*((f"{n}", b"") for n in range(4)))
    with pytest.raises(Refused, match="more files than the 3"):
        in_zip(content)
    with pytest.raises(Refused, match="more files than the 3"):
        in_zip(zipped(*((f"{n}", b"") for n in range(13))))
    for n in range(2):
        (tmp_path / f"{n}").mkdir()
        for m in range(2):
            (tmp_path / f"{n}" / f"{m}").touch()
    with pytest.raises(Refused, match="more files than the 3"):
        in_folder(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"), [("A.ipynb", "a.ipynb"), ("ﬁ.ipynb", "fi.ipynb"), ("é", "e\u0301")]
)
def test_names_that_are_one_name_elsewhere_are_refused(one, other):
    with pytest.raises(Refused, match="the same name but for capitals"):
        in_zip(zipped((one, b"1"), (other, b"2")))


def test_what_is_no_zip_or_cut_off_is_refused():
    whole = zipped(("x.ipynb", os.urandom(200)))
    for content in (b"", b"PK\x03\x04", whole[:-30], b"%PDF-1.7"):
        with pytest.raises(Refused, match="cannot be read"):
            in_zip(content)
    broken = bytearray(whole)
    broken[60] ^= 255
    with pytest.raises(Refused, match="broken"):
        in_zip(bytes(broken))[0].read()


def test_a_folder_is_listed_and_read_and_nothing_is_followed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.ipynb").write_text("{}")
    assert [(f.name, f.read()) for f in in_folder(tmp_path)] == [("a/x.ipynb", b"{}")]
    (tmp_path / "a" / "y.ipynb").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match=r"'a/y\.ipynb' is a link"):
        in_folder(tmp_path)
    (tmp_path / "a" / "y.ipynb").unlink()
    (tmp_path / "b").symlink_to("/etc")
    with pytest.raises(Refused, match="'b' is a link"):
        in_folder(tmp_path)
    (tmp_path / "b").unlink()
    os.mkfifo(tmp_path / "c.ipynb")
    with pytest.raises(Refused, match="is a pipe"):
        in_folder(tmp_path)
    (tmp_path / "c.ipynb").unlink()
    (tmp_path / "d\u202e").mkdir()
    with pytest.raises(Refused, match=r"u202e"):
        in_folder(tmp_path)


def test_a_file_that_becomes_a_link_or_a_pipe_is_not_read(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text("{}")
    file = on_disk(path, "x.ipynb")
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="cannot be opened"):
        file.read()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Refused, match="no ordinary file"):
        file.read()


def test_what_systems_leave_behind_is_known():
    assert archives.is_left_over("__MACOSX/._x.ipynb")
    assert archives.is_left_over("a/.ipynb_checkpoints/x-checkpoint.ipynb")
    assert archives.is_left_over("a/._x.ipynb")
    assert not archives.is_left_over("x.ipynb")
    assert archives.is_archive("A.ZIP")
    assert archives.is_archive("a.tar.gz")
    assert archives.shown("a" * 70) == "'" + "a" * 57 + "...'"
