import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from segedu.errors import InputError
from segedu.models.mask_rcnn.anchors import Anchors, cell_anchors, grid_anchors

sizes = st.lists(st.floats(1, 600, width=32), min_size=1, max_size=3)
ratios = st.lists(st.floats(0.125, 10, width=32), min_size=1, max_size=4)


def theirs(settings, features, image_size):
    """torchvision's anchors of all levels in one tensor."""
    generator = AnchorGenerator(settings.sizes, (settings.aspect_ratios,) * len(settings.sizes))
    images = ImageList(torch.zeros(1, 3, *image_size), [image_size])
    return generator(images, features)[0]


@settings(max_examples=40)
@given(sizes, ratios)
def test_the_anchors_of_one_place_are_torchvisions(size, ratio):
    generator = AnchorGenerator((tuple(size),), (tuple(ratio),))
    torch.testing.assert_close(cell_anchors(size, ratio), generator.cell_anchors[0], rtol=0, atol=0)


def test_the_anchors_of_size_32_are_those_of_the_paper():
    by_hand = [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    assert cell_anchors([32], [0.5, 1, 2]).tolist() == by_hand


def test_half_a_pixel_is_rounded_to_the_even_one_so_that_size_5_is_4_wide():
    assert cell_anchors([5, 7], [1]).tolist() == [[-2, -2, 2, 2], [-4, -4, 4, 4]]


def test_places_go_row_by_row_with_all_anchors_of_one_place_together():
    cells = torch.tensor([[-1.0, -1, 1, 1], [-2, -1, 2, 1]])
    by_hand = [
        [-1, -1, 1, 1], [-2, -1, 2, 1],
        [7, -1, 9, 1], [6, -1, 10, 1],
        [15, -1, 17, 1], [14, -1, 18, 1],
        [-1, 3, 1, 5], [-2, 3, 2, 5],
        [7, 3, 9, 5], [6, 3, 10, 5],
        [15, 3, 17, 5], [14, 3, 18, 5],
    ]  # fmt: skip
    assert grid_anchors(cells, grid=(2, 3), stride=(4, 8)).tolist() == by_hand


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=4),
    st.integers(7, 70),
    st.integers(7, 70),
    ratios,
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_anchors_over_all_levels_are_torchvisions(grids, height, width, ratio, dtype):
    settings = Anchors(tuple((8 * 2**i, 11 * 2**i) for i in range(len(grids))), tuple(ratio))
    features = [torch.zeros(1, 2, *grid, dtype=dtype) for grid in grids]
    ours = settings(features, (height, width))
    expected = theirs(settings, features, (height, width))
    torch.testing.assert_close(torch.cat(ours), expected, rtol=0, atol=0)
    assert [len(level) for level in ours] == [r * c * 2 * len(ratio) for r, c in grids]
    assert settings.per_location == 2 * len(ratio)


def test_without_settings_the_anchors_are_those_of_torchvisions_mask_rcnn():
    features = [torch.zeros(1, 1, 128 // 2**i, 64 // 2**i) for i in range(5)]
    ours = torch.cat(Anchors()(features, (512, 256)))
    torch.testing.assert_close(ours, theirs(Anchors(), features, (512, 256)), rtol=0, atol=0)
    assert len(ours) == 3 * sum(f.numel() for f in features)


def test_an_image_that_the_grid_does_not_divide_has_a_stride_rounded_down():
    [level] = Anchors(((8,),), (1.0,))([torch.zeros(3, 3)], (11, 29))
    assert level[:, 0].unique().tolist() == [-4, 5, 14]
    assert level[:, 1].unique().tolist() == [-4, -1, 2]


def test_levels_that_differ_in_their_number_of_sizes_are_refused():
    with pytest.raises(InputError, match="as many sizes on each level"):
        Anchors(((8,), (16, 32)))
    with pytest.raises(InputError, match="one ratio or more"):
        Anchors(((8,),), ())


def test_a_level_without_feature_map_is_refused():
    with pytest.raises(InputError, match="1 feature maps for 5 levels"):
        Anchors()([torch.zeros(1, 4, 4)], (64, 64))
