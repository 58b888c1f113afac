from collections.abc import Mapping

import pytest
import torch
from torchvision import tv_tensors

from segedu.data.paired import Pair, PairedFiles, need_same_size, pairs_by_name, recoded
from segedu.data.sample import IGNORE
from segedu.errors import InputError


class Two(PairedFiles):
    classes = ("no", "yes")
    codes: Mapping[int, int] = {0: 0, 7: 1, 9: IGNORE}


def test_numbers_become_the_classes_they_stand_for():
    stored = torch.tensor([[0, 7], [9, 7]])
    assert recoded(stored, Two.codes).tolist() == [[0, 1], [IGNORE, 1]]


def test_unknown_numbers_are_named_with_the_known_ones():
    with pytest.raises(InputError, match=r"stores 1, 5, 300; expected only 0, 2\.\.3, 7$"):
        recoded(torch.tensor([[300, 5, 1, 5, 0]]), {0: 0, 2: 1, 3: 2, 7: 3})


def test_of_many_unknown_numbers_five_are_named():
    with pytest.raises(InputError, match=r"stores 1, 2, 3, 4, 5 \.\.\.; expected only 0, 9"):
        recoded(torch.arange(9)[None], {0: 0, 9: 1})


def test_a_sample_is_an_image_and_a_mask_of_the_types_that_transforms_know(tmp_path, write_pair):
    write_pair(tmp_path / "a.png", tmp_path / "m" / "a.png", [[0, 7, 9], [0, 0, 7]])
    data = Two([Pair(tmp_path / "a.png", tmp_path / "m" / "a.png")])
    sample = data[0]
    assert isinstance(sample["image"], tv_tensors.Image)
    assert isinstance(sample["mask"], tv_tensors.Mask)
    assert sample["image"].shape == (3, 2, 3)
    assert sample["image"].unique().tolist() == pytest.approx([0.2])
    assert sample["mask"].tolist() == [[0, 1, 255], [0, 0, 1]]
    assert sample["mask"].dtype == torch.int64
    assert len(data) == 1
    assert data.names == ["a"]
    with pytest.raises(IndexError):
        data[1]


def test_a_strange_number_is_reported_with_its_file(tmp_path, write_pair):
    write_pair(tmp_path / "a.png", tmp_path / "m" / "a.png", [[0, 8]])
    with pytest.raises(InputError) as caught:
        Two([Pair(tmp_path / "a.png", tmp_path / "m" / "a.png")])[0]
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'm' / 'a.png'}: stores 8; expected only 0, 7, 9; it is")


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path):
    pair = Pair(tmp_path / "a.jpg", tmp_path / "a.png")
    need_same_size((4, 6), (4, 6), pair)
    with pytest.raises(
        InputError, match=r"a\.png: is 4x6 pixels; expected 6x4, the size of a\.jpg"
    ):
        need_same_size((4, 6), (6, 4), pair)


def test_files_are_paired_by_name_and_those_without_a_mask_left_out(tmp_path, write_image):
    for name in ("b.jpg", "a.jpg", "lonely.jpg", ".hidden.jpg"):
        write_image(tmp_path / "x" / name, [[0]])
    for name in ("a.png", "b.png", ".hidden.png", "other.png"):
        write_image(tmp_path / "y" / name, [[0]])
    pairs = pairs_by_name(tmp_path / "x", tmp_path / "y")
    assert [(pair.image.name, pair.mask.name) for pair in pairs] == [
        ("a.jpg", "a.png"),
        ("b.jpg", "b.png"),
    ]
    assert pairs_by_name(tmp_path / "nowhere", tmp_path / "y") == []


def test_in_one_folder_a_mask_is_not_its_own_mask(tmp_path, write_image):
    for name in ("a.jpg", "a.png"):
        write_image(tmp_path / name, [[0]])
    assert [pair.image.name for pair in pairs_by_name(tmp_path, tmp_path)] == ["a.jpg"]
