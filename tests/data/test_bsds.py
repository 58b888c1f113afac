import numpy as np
import pytest
import scipy.io
import torch

from segedu.data.bsds import Bsds
from segedu.errors import InputError

LEFT = np.array([[1, 1, 2, 2]] * 3, dtype=np.uint16)
TOP = np.array([[1] * 4, [2] * 4, [3] * 4], dtype=np.uint16)


def write_mat(path, people):
    """As the public files have it: one cell for each person, each with two matrices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.empty((1, len(people)), dtype=object)
    for number, (segmentation, boundaries) in enumerate(people):
        cells[0, number] = {"Segmentation": segmentation, "Boundaries": boundaries}
    scipy.io.savemat(path, {"groundTruth": cells})


@pytest.fixture
def root(tmp_path, write_image):
    write_image(tmp_path / "images/train/8.jpg", np.zeros((3, 4, 3)))
    drawn = np.zeros((2, 3, 4), dtype=np.uint8)
    drawn[0, :, 1] = drawn[1, 0, 1:] = 1
    write_mat(tmp_path / "groundTruth/train/8.mat", [(LEFT, drawn[0]), (TOP, drawn[1])])
    (tmp_path / "images/train/Thumbs.db").write_bytes(b"no image")
    return tmp_path


def test_each_person_has_regions_and_boundaries(root):
    data = Bsds(root)
    assert data.names == ["8"]
    assert len(data) == 1
    sample = data[0]
    assert sample["segmentations"].tolist() == [LEFT.tolist(), TOP.tolist()]
    assert sample["boundaries"].dtype == torch.bool
    assert sample["boundaries"].nonzero().tolist() == [
        [0, 0, 1],
        [0, 1, 1],
        [0, 2, 1],
        [1, 0, 1],
        [1, 0, 2],
        [1, 0, 3],
    ]


def test_the_mask_is_where_anyone_drew_a_boundary(root):
    assert Bsds(root)[0]["mask"].tolist() == [[0, 1, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0]]


def test_a_photograph_of_another_size_is_refused(root, write_image):
    write_image(root / "images/train/8.jpg", np.zeros((4, 3, 3)))
    with pytest.raises(InputError, match=r"8\.mat: is 4x3 pixels; expected 3x4"):
        Bsds(root)[0]


@pytest.mark.parametrize("content", [b"", b"not a MATLAB file" * 20])
def test_a_broken_file_is_reported_by_name(root, content):
    (root / "groundTruth/train/8.mat").write_bytes(content)
    with pytest.raises(InputError, match=r"8\.mat: cannot be read as a BSDS500 MATLAB file"):
        Bsds(root)[0]


def test_a_matlab_file_with_something_else_is_reported(root):
    scipy.io.savemat(root / "groundTruth/train/8.mat", {"other": 1})
    with pytest.raises(InputError, match=r"8\.mat: cannot be read"):
        Bsds(root)[0]


@pytest.mark.real
def test_real_people_number_their_regions_from_1_without_gaps(real_root):
    for split in ("train", "val"):
        sample = Bsds(real_root / "bsds", split)[0]
        assert len(sample["segmentations"]) >= 4
        for regions in sample["segmentations"]:
            assert regions.unique().tolist() == list(range(1, regions.max().item() + 1))
        assert 0 < sample["boundaries"].double().mean() < 0.1
