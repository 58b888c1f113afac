import numpy as np
import pytest
import torch
from PIL import Image

from segedu.data.images import read_image, read_index
from segedu.errors import InputError


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options)
    return path


def test_a_colour_picture_comes_as_fractions_channels_first(tmp_path):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
    image = read_image(save(tmp_path / "a.png", pixels))
    assert image.shape == (3, 2, 3)
    torch.testing.assert_close(image.permute(1, 2, 0) * 255, torch.from_numpy(pixels).float())


def test_grey_becomes_three_equal_channels(tmp_path):
    image = read_image(save(tmp_path / "a.png", np.array([[0, 255], [51, 102]], dtype=np.uint8)))
    assert image[0].equal(image[1])
    assert image[2].flatten().tolist() == pytest.approx([0, 1, 0.2, 0.4])


def test_sixteen_bits_stay_sixteen_bits(tmp_path):
    image = read_image(save(tmp_path / "a.png", np.array([[1, 65535, 257]], dtype=np.uint16)))
    assert (image[0, 0] * 65535).tolist() == pytest.approx([1, 65535, 257])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "CMYK", "L"])
def test_every_mode_of_picture_can_be_read(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (3, 4, 5)
    assert (image > 0.98).all()


def test_transparency_is_dropped_and_not_mixed_in(tmp_path):
    pixels = np.full((2, 2, 4), 200, dtype=np.uint8)
    pixels[..., 3] = 0
    assert (read_image(save(tmp_path / "a.png", pixels)) * 255).round().unique().tolist() == [200]


def test_a_photograph_taken_on_its_side_is_turned_upright(tmp_path):
    photo = Image.new("RGB", (6, 4), (0, 0, 0))
    photo.putpixel((0, 0), (255, 255, 255))
    exif = photo.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    photo.save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 6, 4)
    assert image[0].nonzero().tolist() == [[0, 3]]


@pytest.mark.parametrize("read", [read_image, read_index])
def test_what_is_no_image_is_named(tmp_path, read):
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"a\.png: cannot be read"):
        read(tmp_path / "a.png")
    whole = save(tmp_path / "b.png", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    whole.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(InputError, match=r"b\.png: cannot be read"):
        read(whole)
    with pytest.raises(InputError, match=r"none\.png: no such file"):
        read(tmp_path / "none.png")


def test_the_numbers_of_a_palette_mask_are_kept(tmp_path):
    mask = Image.fromarray(np.array([[0, 3], [255, 1]], dtype=np.uint8))
    mask.putpalette([i % 256 for i in range(768)])
    mask.save(tmp_path / "m.png")
    assert read_index(tmp_path / "m.png").tolist() == [[0, 3], [255, 1]]


def test_a_colour_picture_is_no_mask_unless_its_channels_are_equal(tmp_path):
    grey = np.repeat(np.array([[[2], [1]]], dtype=np.uint8), 3, axis=2)
    assert read_index(save(tmp_path / "grey.png", grey)).tolist() == [[2, 1]]
    grey[0, 0, 1] = 9
    with pytest.raises(InputError, match="is a colour image; expected one number per pixel"):
        read_index(save(tmp_path / "colour.png", grey))
