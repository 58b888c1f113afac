import subprocess
import sys
from pathlib import Path

import pytest

from segedu.data import catalog
from segedu.data.catalog import ENTRIES, available, data_root, how_many, load, table, where
from segedu.data.membranes import Membranes
from segedu.errors import InputError


@pytest.fixture
def root(tmp_path, write_pair, write_manifest):
    """A folder of sets with two of the three files of `membranes`."""
    names = ("image/0.png", "label/0.png", "aug/0.png")
    write_manifest("membranes", dict.fromkeys(names, b""), place="train")
    folder = tmp_path / "sets" / "membranes" / "train"
    write_pair(folder / "image/0.png", folder / "label/0.png", [[0, 255]])
    (folder / "notes.txt").write_text("not of the set")
    return tmp_path / "sets"


def test_scenes_are_drawn_and_their_splits_differ():
    lengths = {split: len(load("scenes", split=split)) for split in ("train", "val", "test")}
    assert lengths == {"train": 1024, "val": 128, "test": 256}
    seeds = {load("scenes", split=split).seed for split in lengths}
    assert len(seeds) == 3
    assert len(load("scenes").classes) == ENTRIES["scenes"].num_classes


def test_a_set_is_read_from_the_folder_of_its_name(root, monkeypatch):
    data = load("membranes", root=root)
    assert isinstance(data, Membranes)
    assert data[0]["mask"].tolist() == [[0, 1]]
    monkeypatch.setenv("SEGEDU_DATA", str(root))
    assert load("membranes").names == ["0"]
    with pytest.raises(InputError, match="for the split 'val'"):
        load("membranes", split="val")


def test_an_unknown_name_is_answered_with_the_nearest_and_all_others():
    with pytest.raises(InputError, match=r"no data set 'Camvit'; did you mean camvid\? choose one"):
        load("Camvit")
    with pytest.raises(InputError, match=r"no data set 'xyz'; choose one of: scenes, camvid, pets"):
        load("xyz")


def test_an_unknown_split_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match="scenes has no split 'all'; choose one of: train, val, t"):
        load("scenes", split="all")


def test_a_set_that_is_not_there_is_answered_with_how_to_get_it(tmp_path):
    with pytest.raises(InputError) as caught:
        load("pets", root=tmp_path)
    assert "segedu data get pets" in str(caught.value)
    assert "SEGEDU_DATA" in str(caught.value)


def test_the_sets_are_in_the_chosen_folder_or_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGEDU_DATA", str(tmp_path))
    assert where("pets") == tmp_path / "pets"
    monkeypatch.setenv("SEGEDU_DATA", "~/sets")
    assert where("pets") == Path.home() / "sets" / "pets"
    monkeypatch.delenv("SEGEDU_DATA")
    assert data_root().name == "segedu"
    with pytest.raises(InputError, match="drawn on demand"):
        where("scenes")


def test_files_of_a_part_of_a_set_are_counted(root):
    assert how_many("membranes", root) == (2, 3)
    assert available("membranes", root)
    assert how_many("scenes", root) == (0, 0)
    assert available("scenes", root)


def test_a_set_without_files_is_not_available(tmp_path, write_manifest):
    write_manifest("pets", {"a": b""})
    assert how_many("pets", tmp_path) == (0, 1)
    assert not available("pets", tmp_path)


def test_the_table_has_a_row_for_every_set(tmp_path):
    rows = {row.name: row for row in table(tmp_path)}
    assert list(rows) == list(ENTRIES)
    assert rows["scenes"].where is None
    assert rows["scenes"].total == 0
    assert rows["camvid"].where == tmp_path / "camvid"
    assert (rows["camvid"].present, rows["camvid"].total) == (0, 1405)
    assert rows["nuclei"].licence == "CC0"


def test_the_catalogue_is_read_without_torch():
    code = (
        "import sys; from segedu.data import catalog, download; catalog.table(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.real
@pytest.mark.parametrize("name", [name for name in ENTRIES if name != "scenes"])
def test_real_sets_give_masks_of_their_classes(name, real_root):
    entry = ENTRIES[name]
    for split in ("train", "val"):
        data = load(name, split=split, root=real_root)
        assert len(data.classes) == entry.num_classes
        assert len(data.names) == len(data)
        sample = data[0]
        assert sample["mask"].shape == sample["image"].shape[1:]
        labelled = sample["mask"][sample["mask"] != 255]
        assert 0 <= labelled.min() <= labelled.max() < entry.num_classes


@pytest.mark.real
def test_real_splits_share_no_file(real_root):
    for name, entry in catalog.ENTRIES.items():
        if entry.drawn:
            continue
        train, val = (load(name, split=split, root=real_root) for split in ("train", "val"))
        assert not set(train.names) & set(val.names)
