from collections import Counter
from pathlib import PurePath

import pytest

from segedu.data.manifests import manifest
from segedu.data.splits import held_out
from segedu.data.tiles import CLASSES, WHOLE, Tiles, run_of_each

RUNS = {first: [first, first + 20, first + 219] for first in (1000, 2000, 3000, 4000, 5000, 6000)}


@pytest.fixture
def root(tmp_path, write_pair, write_manifest):
    """Of each run, the first photograph is free and the last one has a crack; neither is listed."""
    middles = (f"MT_Free/Imgs/exp2_num_{middle}.jpg" for _, middle, _ in RUNS.values())
    write_manifest("tiles", dict.fromkeys(middles, b""))
    for first, _, last in RUNS.values():
        for kind, name in (("Free", f"exp1_num_{first}"), ("Crack", f"exp3_num_{last}")):
            folder = tmp_path / f"MT_{kind}" / "Imgs"
            stored = [[0, 127, 128, 255]] if kind == "Crack" else [[0, 0, 3, 0]]
            write_pair(folder / f"{name}.jpg", folder / f"{name}.png", stored)
    return tmp_path


def test_a_defect_has_the_class_of_its_folder_where_the_mask_is_more_than_half_white(root):
    data = Tiles(root)
    assert set(data.kinds) == {"free", "crack"}
    for index, kind in enumerate(data.kinds):
        expected = [[0, 0, 3, 3]] if kind == "crack" else [[0, 0, 0, 0]]
        assert data[index]["mask"].tolist() == expected
    assert CLASSES[3] == "crack"


def test_a_run_is_in_one_split_even_when_what_links_it_is_not_there(root):
    train, val = Tiles(root, "train"), Tiles(root, "val")
    assert len(train) + len(val) == 12
    for data, kept in ((train, False), (val, True)):
        assert Counter(data.runs) == dict.fromkeys(data.runs, 2)
        assert set(data.runs) <= set(RUNS)
        assert all(held_out(f"tile run {run}", one_in=3) == kept for run in data.runs)


def test_a_gap_of_200_ends_a_run():
    names = ["exp1_num_5", "exp2_num_204", "exp1_num_404", "exp2_num_405"]
    assert list(run_of_each(names).values()) == [5, 5, 404, 404]


def test_both_splits_of_the_whole_set_have_every_kind():
    files = [PurePath(path) for path in manifest("tiles").listed if "_num_" in path]
    photographs = [path for path in files if path.suffix == ".jpg"]
    runs = run_of_each(path.stem for path in photographs)
    val = [p for p in photographs if held_out(f"tile run {runs[p.stem]}", one_in=3)]
    assert {"train": len(photographs) - len(val), "val": len(val)} == WHOLE
    whole, kept = (Counter(path.parts[0] for path in paths) for paths in (photographs, val))
    for kind in CLASSES:
        assert 0.2 < kept[f"MT_{kind.title()}"] / whole[f"MT_{kind.title()}"] < 0.5


@pytest.mark.real
def test_real_defects_have_their_class_and_free_tiles_none(real_root):
    data = Tiles(real_root / "tiles", "val")
    seen = {kind: set() for kind in CLASSES}
    for index, kind in enumerate(data.kinds):
        seen[kind] |= set(data[index]["mask"].unique().tolist())
    assert seen == {kind: {0, index} for index, kind in enumerate(CLASSES)}
