"""Chapter 02's own codecs, fillings and transforms are the package's and the libraries'."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage.draw import polygon2mask
from taught import taught

from segedu.data import rle
from segedu.data.coco import _segment_ids
from segedu.data.images import read_index
from segedu.data.pets import Pets
from segedu.data.sample import IGNORE

chapter = taught("02_masks_and_data")
masks = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda size: arrays(bool, size))


@given(masks)
def test_run_lengths_and_their_string_are_the_packages_both_ways(mask):
    counts = rle.encode(mask).tolist()
    assert chapter.run_lengths(mask).tolist() == counts
    assert chapter.from_runs(counts, *mask.shape).tolist() == mask.tolist()
    assert chapter.pack(counts) == rle.to_string(counts)
    assert chapter.unpack(rle.to_string(counts)) == counts


@given(st.lists(st.integers(0, 2**31), max_size=12))
def test_any_counts_are_packed_as_in_the_package(counts):
    assert chapter.pack(counts) == rle.to_string(counts)
    assert chapter.unpack(chapter.pack(counts)) == counts


def test_panoptic_ids_are_read_as_the_loader_reads_them(tmp_path):
    ids = np.array([[0, 255, 256], [65535, 65536, 2**24 - 1]])
    Image.fromarray(chapter.to_colours(ids)).save(tmp_path / "ids.png")
    assert _segment_ids(tmp_path / "ids.png").tolist() == ids.tolist()
    assert chapter.to_ids(chapter.to_colours(ids)).tolist() == ids.tolist()


def test_the_chapters_table_of_a_trimap_is_the_loaders():
    stored = np.array([[1, 2], [3, 2]])
    assert chapter.translate(stored, dict(Pets.codes)).tolist() == [[1, 0], [IGNORE, 0]]
    with pytest.raises(ValueError, match=r"stores \[0, 7\]"):
        chapter.translate(np.array([[0, 7]]), dict(Pets.codes))


def test_a_palette_png_read_chunk_by_chunk_stores_what_read_index_reads(tmp_path):
    stored = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    picture = Image.fromarray(stored)
    picture.putpalette(chapter.voc_colours().ravel().tolist())
    picture.save(tmp_path / "mask.png")
    parts = chapter.chunks((tmp_path / "mask.png").read_bytes())
    assert parts[b"PLTE"] == chapter.voc_colours().tobytes()
    assert read_index(tmp_path / "mask.png").tolist() == stored.tolist()


def test_pixels_inside_a_polygon_are_those_of_skimage_moved_by_half_a_pixel():
    generator = np.random.default_rng(0)
    for _ in range(50):
        corners = generator.random((5, 2)) * 20  # crossing outlines among them
        moved = [(y - 0.5, x - 0.5) for x, y in corners]
        found = chapter.inside([tuple(corner) for corner in corners.tolist()], 18, 22)
        assert (found == polygon2mask((18, 22), moved)).all()


def test_looking_up_between_pixels_is_torchs_grid_sample():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 7, 9, generator=generator)
    rows, columns = (
        size * torch.rand(11, 5, generator=generator) * 1.4 - 0.2 * size for size in (7, 9)
    )
    where = torch.stack([(2 * columns + 1) / 9 - 1, (2 * rows + 1) / 7 - 1], dim=-1)[None]
    wanted = F.grid_sample(image[None], where, align_corners=False)[0]
    torch.testing.assert_close(chapter.bilinear(image, rows, columns), wanted, atol=1e-5, rtol=0)
    wanted = F.grid_sample(image[None], where, mode="nearest", align_corners=False)[0]
    torch.testing.assert_close(chapter.nearest(image, rows, columns, 0.0), wanted)


def test_a_moved_mask_is_void_beyond_the_edge_and_its_image_black():
    image, mask = torch.ones(3, 4, 4), torch.ones(4, 4, dtype=torch.int64)
    i, j = chapter.grid(4, 4)
    moved_image, moved_mask = chapter.move(image, mask, i + 2, j)
    assert moved_mask.tolist() == [[1] * 4] * 2 + [[IGNORE] * 4] * 2
    assert moved_image[:, 2:].sum() == 0
