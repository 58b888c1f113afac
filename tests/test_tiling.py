from itertools import pairwise

import pytest
import torch
from torch import nn

from segedu.data.scenes import Scenes
from segedu.errors import InputError
from segedu.models.unet import UNet
from segedu.tiles import InMemory, Tiling, predict_strips, ramp, spans, widened

CPU = torch.device("cpu")


def small_network():
    """A U-Net with random weights that finds each class, and sees some pixels to each side."""
    torch.manual_seed(1)
    model = UNet(6, widths=(4, 8)).eval()
    with torch.no_grad():
        logits = model(Scenes(1)[0]["image"].as_subclass(torch.Tensor)[None])
        model.classify.bias -= logits.flatten(2).median(dim=2).values[0]
    return model


@pytest.fixture
def picture():
    """A picture of scenes side by side, (3, 211, 331)."""
    rows = [torch.cat([Scenes(12)[4 * r + i]["image"] for i in range(4)], dim=2) for r in range(3)]
    return torch.cat(rows, dim=1)[:, :211, :331].as_subclass(torch.Tensor)


def labels(model, image, tiling):
    strips = [*predict_strips(model, InMemory(image), tiling, CPU)]
    assert [strip.start for strip, _ in strips] == [0, *(strip.stop for strip, _ in strips[:-1])]
    assert all(len(rows) == strip.stop - strip.start for strip, rows in strips)
    return torch.cat([rows for _, rows in strips])


def of_the_whole(model, picture):
    """The class of each pixel from one pass, and by how much it beats the next."""
    with torch.inference_mode():
        best = model(picture[None])[0].topk(2, dim=0)
    return best.indices[0], best.values[0] - best.values[1]


@pytest.mark.parametrize("blend", [0, 8])
def test_tiles_that_see_far_enough_give_what_the_whole_picture_gives(picture, blend):
    model = small_network()
    whole, lead = of_the_whole(model, picture)
    found = labels(model, picture, Tiling(64, 32 + blend, blend))
    sure = lead > 1e-5  # blended, equal numbers are added up in another order
    assert found[sure].equal(whole[sure])
    assert sure.float().mean() > 0.9
    assert len(whole.unique()) > 1


def test_tiles_that_see_too_little_differ_and_only_near_cuts(picture):
    model = small_network()
    wrong = labels(model, picture, Tiling(64, 0)) != of_the_whole(model, picture)[0]
    assert wrong.any()
    near = torch.zeros(2, *wrong.shape, dtype=torch.bool)
    for axis, length in enumerate(wrong.shape):
        for span in spans(length, 64)[1:]:
            near.movedim(axis + 1, 1)[axis, max(0, span.start - 20) : span.start + 20] = True
    assert not (wrong & ~near.any(dim=0)).any()


class Left(nn.Module):
    """Says class 1 with a probability that depends on the tile's own width, and so has seams."""

    def forward(self, image):
        odd = image.mean(dim=(1, 2, 3)) > 0.5
        share = torch.where(odd, 0.8, 0.4).expand(1, 1, *image.shape[2:])
        return torch.cat([1 - share, share], dim=1).log()


def test_two_tiles_that_disagree_meet_in_the_middle_of_the_blend():
    image = torch.zeros(3, 64, 128)
    image[:, :, 64:] = 1
    found = labels(Left(), image, Tiling(64, 16, 16))
    # 0.4 and 0.8 mixed by w and 1 - w is above a half from w = 3/4 on: 8 pixels before the cut
    assert found[:, :56].eq(0).all()
    assert found[:, 56:].eq(1).all()
    assert labels(Left(), image.mT, Tiling(64, 16, 16)).equal(found.mT)


@pytest.mark.parametrize(("length", "size", "blend"), [(100, 30, 7), (64, 64, 16), (65, 64, 16)])
def test_the_weights_of_all_pieces_add_up_to_one_everywhere(length, size, blend):
    total = torch.zeros(length)
    for span in spans(length, size):
        start = max(0, span.start - blend)
        weight = ramp(span, length, blend)
        total[start : start + len(weight)] += weight
    assert torch.allclose(total, torch.ones(length))


def test_a_ramp_by_hand():
    assert ramp(slice(4, 12), 12, 2).tolist() == [0.125, 0.375, 0.625, 0.875, 1, 1, 1, 1, 1, 1]
    assert ramp(slice(0, 4), 12, 2).tolist() == [1, 1, 0.875, 0.625, 0.375, 0.125]


@pytest.mark.parametrize("length", [1, 768, 769, 1536, 1537, 5000])
def test_pieces_cover_all_without_overlap_and_none_is_too_long(length):
    pieces = spans(length, 768)
    assert [pieces[0].start, pieces[-1].stop] == [0, length]
    assert all(a.stop == b.start for a, b in pairwise(pieces))
    assert max(span.stop - span.start for span in pieces) <= 768
    assert len(pieces) == -(-length // 768)


def test_what_a_tile_sees_begins_on_the_grid_and_ends_within_the_picture():
    assert widened(slice(100, 200), 1000, 30) == slice(64, 230)
    assert widened(slice(10, 200), 210, 30) == slice(0, 210)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 0), "tiles of 0 pixels"),
        ((64, -1, 0), "a margin of -1"),
        ((64, 8, 9), "blend is 9; expected 0 to 8"),
        ((64, 32, 17), "blend is 17; expected 0 to 16"),
        ((64, 32, -1), "blend is -1"),
    ],
)
def test_a_cut_that_cannot_be_made_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Tiling(*arguments)


@pytest.mark.gpu
def test_tiles_on_a_gpu_give_labels_on_the_cpu(picture):
    model = small_network()
    expected = labels(model, picture, Tiling(64, 48, 8))
    found = [
        rows
        for _, rows in predict_strips(
            model.cuda(), InMemory(picture), Tiling(64, 48, 8), torch.device("cuda")
        )
    ]
    assert (torch.cat(found) == expected).float().mean() > 0.999
