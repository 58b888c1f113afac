import errno
import io
import shutil
import zipfile
from pathlib import Path

import pytest
from loopback import COMMIT

from segedu.data import download
from segedu.data import fetch as fetching
from segedu.data.download import get, verify
from segedu.errors import InputError

FILES = {"image/0.png": b"0" * 3000, "image/1 a.png": b"1" * 2000, "label/0.png": b"2" * 1000}
ZIP = f"/owner/fake/zip/{COMMIT}"
RAW = f"/owner/fake/{COMMIT}/data"


def zipped(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in files.items():
            archive.writestr(f"fake-{COMMIT}/data/{path}", content)
        archive.writestr(f"fake-{COMMIT}/README.md", "not of the set")
    return packed.getvalue()


def served_one_by_one(files):
    return {f"{RAW}/{path.replace(' ', '%20')}": content for path, content in files.items()}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "sets"


@pytest.fixture(autouse=True)
def _public_hosts(server, monkeypatch, write_manifest):
    """The public hosts are the server's /zips and /raw; the set `membranes` is FILES."""
    write_manifest("membranes", FILES, place="train")
    monkeypatch.setattr(download, "ARCHIVES", f"{server.address}/zips")
    monkeypatch.setattr(download, "FILES", f"{server.address}/raw")
    monkeypatch.delenv("SEGEDU_MIRRORS", raising=False)


def fetch(root, **options):
    return get("membranes", root=root, progress=False, **options)


def on_disk(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.png")}


def test_the_archives_files_end_at_their_place(server, root):
    server.content[f"/zips{ZIP}"] = zipped(FILES)
    assert fetch(root) == root / "membranes"
    assert on_disk(root / "membranes" / "train") == FILES
    assert [path.name for path in root.iterdir()] == ["membranes"]
    assert len(server.asked) == 1


def test_a_set_that_is_there_is_not_downloaded_again(server, root):
    server.content[f"/zips{ZIP}"] = zipped(FILES)
    fetch(root)
    assert fetch(root) == root / "membranes"
    assert len(server.asked) == 1


def test_without_the_archive_the_files_come_one_by_one(server, root):
    server.content = {f"/raw{path}": body for path, body in served_one_by_one(FILES).items()}
    assert on_disk(fetch(root) / "train") == FILES
    assert server.asked[0][0] == f"/zips{ZIP}"


def test_an_interrupted_archive_goes_on_at_the_next_call(server, root, monkeypatch):
    archive = server.content[f"/zips{ZIP}"] = zipped(FILES)
    monkeypatch.setattr(fetching, "CHUNK", 500)
    server.cuts[f"/zips{ZIP}"] = [1000, 1000, 1000]
    with pytest.raises(InputError, match="no connection, or it broke"):
        fetch(root)
    assert not (root / "membranes").exists()
    assert all(path.name.endswith(".partial") for path in root.iterdir())
    assert on_disk(fetch(root) / "train") == FILES
    assert server.asked[-1] == (f"/zips{ZIP}", "bytes=3000-")
    assert server.sent == len(archive)


def test_files_that_are_right_are_not_asked_for_again(server, root):
    wrong = {**FILES, "label/0.png": b"changed"}
    server.content = {f"/raw{path}": body for path, body in served_one_by_one(wrong).items()}
    with pytest.raises(InputError, match=r"train/label/0\.png: wrong checksum"):
        fetch(root)
    assert not (root / "membranes").exists()
    server.content |= {f"/raw{path}": body for path, body in served_one_by_one(FILES).items()}
    server.asked.clear()
    fetch(root)
    assert [path for path, _ in server.asked] == [f"/zips{ZIP}", f"/raw{RAW}/label/0.png"]


def test_the_good_files_of_an_archive_with_a_wrong_one_are_used(server, root):
    server.content[f"/zips{ZIP}"] = zipped({**FILES, "label/0.png": b"changed"})
    server.content[f"/raw{RAW}/label/0.png"] = FILES["label/0.png"]
    assert on_disk(fetch(root) / "train") == FILES
    assert len(server.asked) == 2


def test_mirrors_come_first_and_in_order(server, root, monkeypatch):
    monkeypatch.setenv("SEGEDU_MIRRORS", f"{server.address}/second/ {server.address}/third")
    server.content[f"/second{ZIP}"] = zipped(FILES)
    fetch(root, mirrors=[f"{server.address}/first"])
    first, second, third = [path for path, _ in server.asked]
    assert first == f"/first{ZIP}"
    assert second == f"/first{RAW}/image/0.png"
    assert third == f"/second{ZIP}"


def test_when_all_fail_the_message_says_what_each_answered(server, root):
    server.content[f"/first{ZIP}"] = b"no zip"
    with pytest.raises(InputError) as caught:
        fetch(root, mirrors=[f"{server.address}/first", "nonsense", "http://127.0.0.1:1"])
    message = str(caught.value)
    assert "\n" not in message
    assert f"/first{ZIP}: the archive cannot be unpacked" in message
    assert f"/first/owner/fake/{COMMIT}: 404 Not Found" in message
    assert "nonsense/owner/fake" in message
    assert "No scheme supplied" in message
    assert f"http://127.0.0.1:1{ZIP}: no connection" in message
    assert f"/zips{ZIP}: 404 Not Found" in message
    assert "SEGEDU_MIRRORS" in message
    assert not (root / "membranes").exists()


def test_a_server_that_does_not_answer_is_given_up(root, monkeypatch):
    def silent(*_, **__):
        raise download.requests.ReadTimeout

    monkeypatch.setattr(download.requests.Session, "get", silent)
    with pytest.raises(InputError, match="no answer in time"):
        fetch(root)


def test_a_dangerous_archive_is_not_unpacked(server, root):
    server.content[f"/zips{ZIP}"] = zipped({**FILES, "../../evil.png": b"evil"})
    with pytest.raises(InputError, match="names a place outside itself"):
        fetch(root)
    assert not list(root.parent.rglob("evil*"))


def test_a_disk_that_fills_up_is_left_as_it_was(server, root, monkeypatch):
    server.content[f"/zips{ZIP}"] = zipped(FILES)
    sound = Path.open

    def full(self, mode="r", *options, **named):
        if "w" in mode and self.name == "1 a.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        return sound(self, mode, *options, **named)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match=r"the disk is full; membranes needs 0\.0 MB"):
        fetch(root)
    assert list(root.iterdir()) == []


def test_a_small_disk_is_noticed_before_the_download(server, root, monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=11_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="the disk is full"):
        fetch(root)
    assert server.asked == []
    assert list(root.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_reported(root):
    root.write_text("a file, not a folder")
    with pytest.raises(InputError, match=r"cannot be written .*set SEGEDU_DATA to another folder"):
        fetch(root)


def test_killed_while_unpacking_there_is_no_set_and_the_next_call_ends_it(
    server, root, monkeypatch
):
    server.content[f"/zips{ZIP}"] = zipped(FILES)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(download, "_compare", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(root)
    assert not (root / "membranes").exists()
    (staging,) = root.iterdir()
    (staging / "files" / "train" / "tmp123").write_text("half of a file")
    assert fetch(root) == root / "membranes"
    assert sorted(path.name for path in (root / "membranes").rglob("*.*")) == [
        "0.png",
        "0.png",
        "1 a.png",
    ]
    assert not list(root.rglob("tmp123"))
    assert len(server.asked) == 1


def test_a_file_that_changes_after_its_check_is_noticed(server, root, monkeypatch):
    server.content[f"/zips{ZIP}"] = zipped(FILES)
    sound = download._remove_strays

    def meddle(files, whole):
        sound(files, whole)
        (files / "train/image/0.png").write_bytes(b"other")

    monkeypatch.setattr(download, "_remove_strays", meddle)
    with pytest.raises(InputError, match=r"image/0\.png: changed after it was checked"):
        fetch(root)
    assert not (root / "membranes").exists()


def test_a_part_of_a_set_is_left_as_it_is(server, root):
    mine = root / "membranes" / "train" / "image" / "0.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(FILES["image/0.png"])
    with pytest.raises(InputError, match=r"holds 1 of 3 files of membranes .* move it away"):
        fetch(root)
    assert server.asked == []
    assert mine.exists()


def test_an_empty_folder_is_filled(server, root):
    server.content[f"/zips{ZIP}"] = zipped(FILES)
    (root / "membranes").mkdir(parents=True)
    assert on_disk(fetch(root) / "train") == FILES


def test_a_single_file_of_another_repository_is_fetched_as_well(server, root, write_manifest):
    write_manifest("coco", FILES, single=b"{}")
    server.content[f"/zips{ZIP}"] = zipped(FILES)
    server.content[f"/raw/other/more/{COMMIT}/far/extra.json"] = b"{}"
    folder = get("coco", root=root, progress=False)
    assert (folder / "extra.json").read_bytes() == b"{}"
    assert on_disk(folder) == FILES


def test_a_copy_is_compared_file_by_file(server, root):
    server.content[f"/zips{ZIP}"] = zipped(FILES)
    folder = fetch(root)
    assert verify("membranes", root=root).whole
    (folder / "train/image/0.png").write_bytes(b"changed")
    (folder / "train/label/0.png").unlink()
    verdict = verify("membranes", root=root)
    assert verdict.wrong == ("train/image/0.png",)
    assert verdict.missing == ("train/label/0.png",)
    assert verdict.total == 3
    assert not verdict.whole


def test_scenes_cannot_be_downloaded(root):
    with pytest.raises(InputError, match="drawn on demand"):
        get("scenes", root=root)
