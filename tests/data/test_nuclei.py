import numpy as np
import pytest
import torch

from segedu.data.manifests import manifest
from segedu.data.nuclei import WHOLE, Nuclei
from segedu.data.splits import held_out
from segedu.errors import InputError

TRAIN = [name for name in "abcdefgh" if not held_out(name, one_in=3)]
VAL = [name for name in "abcdefgh" if held_out(name, one_in=3)]


@pytest.fixture
def root(tmp_path, write_image):
    """Three nuclei that share the pixel (1, 1), and one elsewhere."""
    first, second, third, fourth = np.zeros((4, 4, 5), dtype=np.uint8)
    first[0:2, 0:2] = second[1:3, 1:3] = third[1, 1] = fourth[3, 4] = 255
    for name in "abcdefgh":
        folder = tmp_path / "stage1_train" / name
        picture = np.full((4, 5, 4), 255)
        picture[..., 1] = 102
        picture[..., 3] = 0
        write_image(folder / "images" / f"{name}.png", picture)
        for number, nucleus in enumerate((first, second, third, fourth)):
            write_image(folder / "masks" / f"{number}.png", nucleus)
    return tmp_path


def test_overlapping_nuclei_keep_all_their_pixels(root):
    sample = Nuclei(root)[0]
    masks = torch.zeros(4, 4, 5, dtype=torch.bool)
    masks[0, 0:2, 0:2] = masks[1, 1:3, 1:3] = masks[2, 1, 1] = masks[3, 3, 4] = True
    assert sample["masks"].equal(masks)
    assert sample["boxes"].tolist() == [[0, 0, 2, 2], [1, 1, 3, 3], [1, 1, 2, 2], [4, 3, 5, 4]]
    assert sample["labels"].tolist() == [1, 1, 1, 1]


def test_the_mask_is_the_union_of_the_nuclei(root):
    sample = Nuclei(root)[0]
    assert sample["mask"].equal(sample["masks"].any(dim=0).long())
    assert sample["mask"].sum() == 8


def test_transparency_is_dropped(root):
    assert Nuclei(root)[0]["image"][:, 0, 0].tolist() == pytest.approx([1, 0.4, 1])


def test_a_picture_is_in_the_split_that_its_own_id_chooses(root):
    assert TRAIN
    assert VAL
    assert Nuclei(root, "train").names == TRAIN
    assert Nuclei(root, "val").names == VAL


def test_mask_files_are_read_once(root):
    data = Nuclei(root)
    before = data[0]["masks"]
    for path in (root / "stage1_train" / TRAIN[0] / "masks").iterdir():
        path.write_bytes(b"")
    after = data[0]["masks"]
    assert after.equal(before)


def test_a_picture_without_nuclei_has_none(root):
    for path in (root / "stage1_train" / TRAIN[0] / "masks").iterdir():
        path.unlink()
    sample = Nuclei(root)[0]
    assert sample["masks"].shape == (0, 4, 5)
    assert sample["boxes"].shape == (0, 4)
    assert sample["mask"].sum() == 0


def test_a_nucleus_of_another_size_is_refused(root, write_image):
    write_image(root / "stage1_train" / TRAIN[0] / "masks" / "9.png", np.zeros((4, 4)))
    with pytest.raises(InputError, match=r"9\.png: is 4x4 pixels; expected 5x4"):
        Nuclei(root)[0]


def test_about_two_thirds_of_the_whole_set_are_for_training():
    ids = {path.split("/")[0] for path in manifest("nuclei").listed}
    val = sum(held_out(name, one_in=3) for name in ids)
    assert {"train": len(ids) - val, "val": val} == WHOLE
    assert len(ids) == 664


@pytest.mark.real
def test_real_nuclei_number_as_many_as_their_files(real_root):
    data = Nuclei(real_root / "nuclei", "val")
    for index in range(3):
        sample = data[index]
        files = list((data.folders[index] / "masks").glob("*.png"))
        assert len(sample["masks"]) == len(files)
        assert sample["masks"].flatten(1).any(dim=1).all()
