import pytest

from segedu.errors import InputError
from segedu.notebooks.chapters import chapter_name, find_chapters


@pytest.fixture
def folder(tmp_path):
    for name in ("10_unet.py", "01_first.py", "02_masks.py", "notes.py", "01_first.ipynb"):
        (tmp_path / name).touch()
    return tmp_path


def names(paths):
    return [path.name for path in paths]


def test_all_chapters_come_in_the_order_of_their_numbers(folder):
    assert names(find_chapters(folder, ".py")) == ["01_first.py", "02_masks.py", "10_unet.py"]


@pytest.mark.parametrize("text", ["1", "01", "01_first"])
def test_a_chapter_is_chosen_by_its_number_or_name(folder, text):
    assert names(find_chapters(folder, ".py", [text])) == ["01_first.py"]


def test_chosen_chapters_come_in_the_order_of_the_course(folder):
    assert names(find_chapters(folder, ".py", ["10", "1", "10"])) == ["01_first.py", "10_unet.py"]


def test_an_unknown_chapter_is_refused_with_those_there_are(folder):
    with pytest.raises(InputError, match="no chapter '3'; there are 01_first, 02_masks, 10_unet"):
        find_chapters(folder, ".py", ["3"])
    with pytest.raises(InputError, match="no chapter 'first'"):
        chapter_name("first", ["01_first"])


def test_a_folder_without_chapters_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no chapter"):
        find_chapters(tmp_path, ".py")
