import pytest

from segedu.data.membranes import Membranes


@pytest.fixture
def root(tmp_path, write_pair):
    for number in (0, 2, 10, 23, 24, 29):
        name = f"{number}.png"
        write_pair(tmp_path / "train/image" / name, tmp_path / "train/label" / name, [[0, 255]])
    write_pair(tmp_path / "train/image/x.png", tmp_path / "train/label/x.png", [[0, 255]])
    return tmp_path


def test_white_is_cell_and_black_is_membrane(root):
    data = Membranes(root)
    assert data[0]["mask"].tolist() == [[0, 1]]
    assert data.classes == ("membrane", "cell")


def test_the_splits_are_blocks_of_slices_in_their_order(root):
    assert Membranes(root, "train").names == ["0", "2", "10", "23"]
    assert Membranes(root, "val").names == ["24", "29"]


@pytest.mark.real
def test_most_of_a_real_slice_is_cell(real_root):
    data = Membranes(real_root / "membranes", "val")
    assert len(data) == 6
    assert 0.6 < data[0]["mask"].double().mean().item() < 0.9
