import hashlib
import lzma
import tomllib

import pytest

from segedu.data import manifests
from segedu.data.catalog import ENTRIES
from segedu.data.manifests import manifest, manifest_folder
from segedu.errors import InputError

NAMES = [name for name, entry in ENTRIES.items() if not entry.drawn]
DIGESTS = {
    "camvid": "1e51433abc0a3fda8796dacc42f17c178e92a8bec41b341ebd7307133918e481",
    "nuclei": "fac35066c30f3155707787a94d6a5a39fdd09deb817364b2fcd590d202349c75",
    "pets": "5cc4286aee013df45f2e870a2029325330e821f64ad064f7c1de61804695f713",
    "tiles": "ee82dbd21450219a6872351878a14cd2c808bef035fa0f49877ed6dc2bd63331",
    "bsds": "26a5389832deb9482de9ca0bf2c812eb8469f96623efa4fdeb031d4434684af6",
    "coco": "c501eeefd66156b5c21c8262fed4ec0274cbb1aa49371cf29e7948832fab28d1",
    "membranes": "2cf6ddbd6694ae7e49fe26a76d1faa011d6bd149ea0ce2439874e9b29d947fba",
}


@pytest.mark.parametrize("name", NAMES)
def test_the_list_of_each_set_has_the_digest_and_number_of_files_that_its_manifest_says(name):
    whole = manifest(name)
    lines = "".join(f"{whole.listed[path]}  {path}\n" for path in sorted(whole.listed))
    assert hashlib.sha256(lines.encode()).hexdigest() == whole.digest == DIGESTS[name]
    assert len(whole.listed) == whole.archive_files
    assert len(whole.digests) == whole.files


@pytest.mark.parametrize("name", NAMES)
def test_every_manifest_says_what_it_is_and_whose(name):
    whole = manifest(name)
    assert whole.title
    assert whole.licence
    assert whole.citation
    assert len(whole.archive.commit) == 40


def test_files_are_named_below_the_sets_own_folder():
    assert "train/image/0.png" in manifest("membranes").digests
    assert "train/0001TP_006690.png" in manifest("camvid").digests
    assert all(path.startswith("stage1_train/") for path in manifest("nuclei").digests)
    coco = manifest("coco")
    assert "annotations/instances_train2017_first128.json" in coco.digests
    assert coco.files == 1131
    assert coco.bytes == 46_278_975 + 560_697


def test_a_list_that_was_changed_is_refused(write_manifest):
    whole = write_manifest("fake", {"a.png": b"a"})
    whole.list_file.write_bytes(lzma.compress(b"0" * 64 + b"  a.png\n"))
    with pytest.raises(InputError, match=r"fake\.sha256\.xz: is not the list that fake\.toml"):
        manifest("fake").digests  # noqa: B018


def test_an_installed_package_carries_its_manifests(tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "__file__", str(tmp_path / "segedu/data/manifests.py"))
    assert manifest_folder() == tmp_path / "data"
    (tmp_path / "segedu" / "_data").mkdir(parents=True)
    assert manifest_folder() == tmp_path / "segedu" / "_data"


def test_manifests_hold_nothing_that_is_not_read():
    known = {"title", "licence", "citation", "files", "bytes", "digest", "archive", "single"}
    for name in NAMES:
        assert set(tomllib.loads((manifest_folder() / f"{name}.toml").read_text())) <= known


@pytest.mark.real
@pytest.mark.parametrize("name", [name for name in NAMES if name != "nuclei"])
def test_real_files_have_the_listed_digests(name, real_root):
    folder, digests = real_root / name, manifest(name).digests
    present = [path for path in digests if (folder / path).is_file()]
    assert present
    for path in present[:: max(1, len(present) // 50)]:
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digests[path]
