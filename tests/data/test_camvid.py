from collections import Counter

import pytest

from segedu.data.camvid import CLASSES, WHOLE, CamVid
from segedu.data.manifests import manifest
from segedu.data.sample import IGNORE
from segedu.errors import InputError


@pytest.fixture
def root(tmp_path, write_pair):
    everything = [list(range(12))]
    for split, name in (
        ("train", "0006R0_f00930"),
        ("train", "0016E5_00390"),
        ("val", "0016E5_07959"),
    ):
        write_pair(
            tmp_path / split / f"{name}.png", tmp_path / f"{split}annot/{name}.png", everything
        )
    write_pair(tmp_path / "train" / "0001TP_1.png", tmp_path / "elsewhere" / "0001TP_1.png", [[0]])
    return tmp_path


def test_void_is_ignored_and_the_classes_keep_their_numbers(root):
    assert CamVid(root)[0]["mask"].tolist() == [[*range(11), IGNORE]]
    assert len(CLASSES) == 11
    assert (CLASSES[0], CLASSES[3], CLASSES[10]) == ("sky", "road", "bicyclist")


def test_a_split_has_the_frames_of_its_own_folder_that_have_a_mask(root):
    assert CamVid(root, "train").names == ["0006R0_f00930", "0016E5_00390"]
    assert CamVid(root, "val").names == ["0016E5_07959"]
    with pytest.raises(InputError, match="for the split 'test'"):
        CamVid(root, "test")


def test_the_drive_is_the_beginning_of_the_name(root):
    assert CamVid(root).drives == ["0006R0", "0016E5"]


def test_a_number_beyond_void_is_refused(root, write_pair):
    write_pair(root / "test" / "a_1.png", root / "testannot" / "a_1.png", [[12, 0]])
    with pytest.raises(InputError, match=r"stores 12; expected only 0\.\.11"):
        CamVid(root, "test")[0]


def test_every_validation_frame_is_from_the_drive_that_gave_most_training_frames():
    drives = {
        split: Counter(
            path.split("/")[1].split("_")[0]
            for path in manifest("camvid").listed
            if path.startswith(f"{split}annot/")
        )
        for split in WHOLE
    }
    assert {split: frames.total() for split, frames in drives.items()} == WHOLE
    assert set(drives["val"]) == {"0016E5"}
    assert drives["train"].most_common(1) == [("0016E5", 204)]
    assert "0016E5" not in drives["test"]


@pytest.mark.real
def test_real_frames_are_360_by_480_and_have_void(real_root):
    sample = CamVid(real_root / "camvid")[0]
    assert sample["image"].shape == (3, 360, 480)
    seen = set(sample["mask"].unique().tolist())
    assert IGNORE in seen
    assert seen - {IGNORE} <= set(range(11))
