import numpy as np
import pytest
from PIL import Image

from segedu.data.folder import Folder
from segedu.data.sample import IGNORE
from segedu.errors import InputError


@pytest.fixture
def images(tmp_path, write_pair):
    """Two pairs, and the folders `images` and `masks` that they are in."""
    write_pair(tmp_path / "images" / "b.JPG", tmp_path / "masks" / "b.png", [[0, 2, 255]])
    write_pair(tmp_path / "images" / "a.png", tmp_path / "masks" / "a.png", [[0, 1, 1]])
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    return tmp_path / "images"


@pytest.fixture
def masks(images):
    return images.with_name("masks")


def test_files_belong_together_by_their_names(images, masks):
    data = Folder(images, masks, ("ground", "sea", "land"))
    assert data.names == ["a", "b"]
    assert data[0]["mask"].tolist() == [[0, 1, 1]]
    assert data[1]["mask"].tolist() == [[0, 2, IGNORE]]
    assert data.classes == ("ground", "sea", "land")


def test_classes_are_counted_when_they_are_not_named(images, masks):
    data = Folder(images, masks)
    assert data.num_classes == 3
    assert data.classes == ("class 0", "class 1", "class 2")


def test_a_palette_mask_gives_indices_not_colours(images, masks):
    palette = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), mode=None).convert("L")
    indexed = Image.new("P", palette.size)
    indexed.putdata([0, 1, 2])
    indexed.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    indexed.save(masks / "a.png")
    assert Folder(images, masks)[0]["mask"].tolist() == [[0, 1, 2]]


def test_codes_say_what_other_numbers_mean(images, masks, write_image):
    for name in ("a", "b"):
        write_image(masks / f"{name}.png", [[0, 255, 100]])
    data = Folder(images, masks, codes={0: 0, 255: 1, 100: IGNORE})
    assert data.num_classes == 2
    assert data[0]["mask"].tolist() == [[0, 1, IGNORE]]


def test_black_and_white_masks_are_not_taken_for_unlabelled_ones(images, masks, write_image):
    for name in ("a", "b"):
        write_image(masks / f"{name}.png", [[0, 255, 255]])
    with pytest.raises(InputError, match=r"only 0 and 255.*pass codes=\{0: 0, 255: 1\}"):
        Folder(images, masks)


def test_an_unknown_class_is_refused_when_it_is_read(images, masks):
    data = Folder(images, masks, ("ground", "sea"))
    assert data[0]["mask"].tolist() == [[0, 1, 1]]
    with pytest.raises(InputError, match=r"b\.png: stores 2; expected only 0\.\.1, 255; correct"):
        data[1]


def test_a_mask_of_another_size_is_refused_when_it_is_read(images, masks, write_image):
    write_image(masks / "a.png", [[0, 1]])
    with pytest.raises(InputError, match=r"a\.png: is 2x1 pixels; expected 3x1"):
        Folder(images, masks)[0]


def test_an_image_that_cannot_be_read_is_reported_by_name(images, masks):
    (images / "a.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"a\.png: cannot be read as an image"):
        Folder(images, masks)[0]


def test_an_image_without_a_mask_is_refused(images, masks):
    (masks / "b.png").unlink()
    with pytest.raises(InputError, match=r"b\.JPG: has no mask; expected .*masks/b\.png; add it"):
        Folder(images, masks)


def test_a_mask_without_an_image_is_refused(images, masks):
    (images / "b.JPG").unlink()
    with pytest.raises(InputError, match=r"b\.png: has no image; expected .*images/b\.png or"):
        Folder(images, masks)


def test_a_jpeg_mask_is_refused(images, masks, write_image):
    (masks / "a.png").unlink()
    write_image(masks / "a.jpg", [[0, 1, 1]])
    with pytest.raises(InputError, match=r"a\.jpg: is a JPEG, .*save masks as PNG"):
        Folder(images, masks)


def test_two_images_of_one_name_are_refused(images, masks, write_image):
    write_image(images / "a.bmp", [[0, 1, 1]])
    with pytest.raises(InputError, match=r"a\.png: has the same name as a\.bmp"):
        Folder(images, masks)


def test_an_empty_folder_a_missing_one_and_one_for_both_are_refused(images, masks, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: has no image; expected files ending in \.png"):
        Folder(tmp_path / "empty", masks)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        Folder(images, tmp_path / "nowhere")
    with pytest.raises(InputError, match="for images and for masks"):
        Folder(images, images)
