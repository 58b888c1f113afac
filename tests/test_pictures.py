import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from segedu import pictures
from segedu.data.images import read_image, read_index
from segedu.errors import InputError
from segedu.palette import class_colours
from segedu.pictures import Decoded, OnDisk, open_picture, strip_writer

ALL = slice(None)


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_a_window_of_an_uncompressed_tiff_is_that_part_of_the_picture(
    tmp_path, dtype, channels, byteorder
):
    greatest = np.iinfo(dtype).max
    array = np.random.default_rng(0).integers(0, greatest, (37, 53, *channels), dtype)
    options = {"photometric": "rgb" if channels else "minisblack", "byteorder": byteorder}
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    opened = open_picture(tmp_path / "a.tif")
    assert isinstance(opened, OnDisk)
    assert (opened.height, opened.width) == (37, 53)
    found = opened.window(slice(5, 30), slice(7, 50))
    expected = array[5:30, 7:50].astype(np.float32) / greatest
    expected = expected[..., :3].transpose(2, 0, 1) if channels else np.stack([expected] * 3)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib"},
        {"extratags": [(274, 3, 1, 6, True)]},
        {"planarconfig": "separate"},
    ],
    ids=["compressed", "on its side", "colour planes"],
)
def test_any_other_tiff_is_decoded_whole_as_it_always_was(tmp_path, colours, options):
    array = colours.transpose(2, 0, 1) if "planarconfig" in options else colours
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", **options)
    opened = open_picture(tmp_path / "a.tif")
    assert isinstance(opened, Decoded)
    assert opened.window(ALL, ALL).equal(read_image(tmp_path / "a.tif").as_subclass(torch.Tensor))


def test_colour_planes_three_pixels_wide_are_not_taken_for_pixels(tmp_path, colours):
    planes = np.ascontiguousarray(colours[:, :3].transpose(2, 0, 1))  # (3, H, 3)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    opened = open_picture(tmp_path / "a.tif")
    assert isinstance(opened, Decoded)
    assert (opened.height, opened.width) == (37, 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_decoded_picture_has_the_same_pixels_as_when_it_is_read(tmp_path, colours, mode):
    Image.fromarray(colours).convert(mode).save(tmp_path / "a.png")
    opened = open_picture(tmp_path / "a.png")
    assert (opened.height, opened.width) == (37, 53)
    whole = read_image(tmp_path / "a.png").as_subclass(torch.Tensor)
    assert opened.window(slice(3, 20), slice(0, 9)).equal(whole[:, 3:20, :9])


def test_what_is_too_large_to_be_decoded_is_refused_and_told_the_way_out(tmp_path, monkeypatch):
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "LARGEST_DECODED", 1999)
    with pytest.raises(InputError, match=r"40 x 50 pixels.*magick a\.png -compress none a\.tif"):
        open_picture(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "LARGEST_DECODED", 2000)
    assert open_picture(tmp_path / "a.png").width == 50


def test_pillows_own_alarm_is_no_warning_but_our_error(tmp_path, monkeypatch):
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "LARGEST_DECODED", 1500)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    with pytest.raises(InputError, match="40 x 50"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_what_is_no_picture_is_named(tmp_path, name):
    with pytest.raises(InputError, match="no such file"):
        open_picture(tmp_path / name)
    (tmp_path / name).write_bytes(b"II*\0 no")
    with pytest.raises(InputError, match="cannot be read as an image"):
        open_picture(tmp_path / name)


def test_strips_written_one_after_another_make_the_picture(tmp_path, colours):
    with strip_writer(tmp_path / "a.tif", colours.shape) as write:
        for top in range(0, 37, 10):
            write(colours[top : top + 10])
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), colours)
    assert isinstance(open_picture(tmp_path / "a.tif"), OnDisk)


def test_a_mask_in_strips_holds_indices_and_shows_class_colours(tmp_path):
    mask = np.random.default_rng(0).integers(0, 6, (9, 14))
    with strip_writer(tmp_path / "a.tif", mask.shape, 6) as write:
        write(mask[:4])
        write(mask[4:])
    assert np.array_equal(read_index(tmp_path / "a.tif"), mask)
    with Image.open(tmp_path / "a.tif") as file:
        assert np.array_equal(np.asarray(file.convert("RGB")), class_colours(6)[mask])


PREDICT = """
import resource, sys, torch
from pathlib import Path
from segedu import predict, strips
from segedu.models.unet import UNet
torch.set_num_threads(1)
torch.manual_seed(0)
predict.LARGE, strips.STRIP_TILE, strips.MARGIN = 0, 256, 32
trained = predict.Trained(UNet(3, widths=(4, 8)).eval(), ("a", "b", "c"), torch.device("cpu"))
predict.predict_file(trained, Path(sys.argv[1]), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")
def test_memory_does_not_grow_with_the_height_of_the_picture(tmp_path):
    peaks = []
    for height in (512, 5632):
        path = tmp_path / f"{height}.tif"
        tifffile.imwrite(
            path, shape=(height, 1024, 3), dtype=np.uint8, photometric="rgb", metadata=None
        )
        run = subprocess.run(
            [sys.executable, "-c", PREDICT, path, tmp_path / "out"],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(run.stdout))
    assert peaks[1] - peaks[0] < 25  # MB; in float32 the picture alone has 60 more
