import pytest

from segedu.data.splits import held_out, need_files, need_split
from segedu.errors import InputError


def test_about_one_name_in_n_is_held_out():
    for n in (2, 3, 5):
        share = sum(held_out(f"name {i}", one_in=n) for i in range(3000)) / 3000
        assert share == pytest.approx(1 / n, abs=0.03)


def test_an_unknown_split_is_refused_with_the_known_ones():
    need_split("val", ("train", "val"), "Pets")
    with pytest.raises(InputError, match=r"Pets has no split 'tset'; choose one of: train, val"):
        need_split("tset", ("train", "val"), "Pets")


def test_no_files_is_refused_with_what_to_do(tmp_path):
    need_files(["a"], tmp_path, name="pets", split="val", layout="images/NAME.jpg")
    with pytest.raises(InputError) as caught:
        need_files([], tmp_path, name="pets", split="val", layout="images/NAME.jpg")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: holds no images/NAME.jpg for the split 'val'")
    assert "segedu data get pets" in message
    assert "SEGEDU_DATA" in message
    assert "\n" not in message
