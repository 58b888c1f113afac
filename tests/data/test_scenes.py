import hashlib
import math

import numpy as np
import pytest
import torch

from segedu.data import outlines, textures
from segedu.data.sample import IGNORE, collate
from segedu.data.scenes import CLASSES, PANOPTIC_BASE, Scenes
from segedu.data.stream import Stream
from segedu.errors import InputError

# Ten times half a point: what is beyond the body, from r = d / cos(72° - angle), and its sector.
_D, _BODY = math.cos(math.radians(72)), 0.52
_MEET = math.acos(_D / _BODY)
STAR_AREA = 10 * (
    _D**2 / 2 * (math.tan(math.radians(72)) - math.tan(_MEET))
    + _BODY**2 / 2 * (math.radians(36) - (math.radians(72) - _MEET))
)
SHAPES = {
    "disc": (outlines.disc, math.pi),
    "square": (outlines.square, 2.0),
    "triangle": (outlines.triangle, 3 * math.sqrt(3) / 4),
    "star": (outlines.star, STAR_AREA),
    "ring": (outlines.ring, math.pi * (1 - 0.55**2)),
}
TEXTURES = (textures.plain, textures.stripes, textures.checks, textures.facets, textures.bands)


def plane(reach=1.2, count=481):
    line = np.linspace(-reach, reach, count, dtype=np.float32)
    v, u = np.meshgrid(line, line, indexing="ij")
    return u.copy(), v.copy(), (2 * reach / (count - 1)) ** 2


def test_scenes_are_the_same_pictures_on_every_machine():
    """The digest was made once; a change here changes every number in the chapters."""
    digest = hashlib.sha256()
    for sample in (
        *(Scenes(3, seed=7)[i] for i in range(3)),
        Scenes(2, size=64, difficulty=1.0)[1],
    ):
        digest.update((sample["image"] * 255).round().to(torch.uint8).numpy().tobytes())
        for key in ("mask", "panoptic", "instance_map", "labels"):
            digest.update(sample[key].numpy().astype("<i8").tobytes())
    assert digest.hexdigest() == "e6c97357c986cbcd7a7d233c796df9b9d6266d86eaf572d4c9b994e9e7d2be77"


def test_a_scene_depends_on_its_seed_and_index_alone():
    a, b = Scenes(5), Scenes(50)
    later = a[3]
    a[0]
    for key in later:
        assert a[3][key].equal(later[key])
        assert b[3][key].equal(later[key])
    assert not Scenes(5, seed=1)[3]["image"].equal(later["image"])
    assert not a[2]["image"].equal(later["image"])


def test_a_scene_that_was_saved_as_png_is_the_same_scene():
    image = Scenes(1)[0]["image"]
    levels = (image * 255).round().to(torch.uint8)
    assert (levels / 255).equal(image.as_subclass(torch.Tensor))


@pytest.mark.parametrize("size", [16, 96, 128])
def test_all_truths_tell_the_same_of_the_same_objects(size):
    for sample in (Scenes(12, size=size)[i] for i in range(12)):
        mask, owner, panoptic = sample["mask"], sample["instance_map"], sample["panoptic"]
        labels = torch.cat([torch.tensor([0]), sample["labels"]])
        labelled = mask != IGNORE
        assert labels[owner][labelled].equal(mask[labelled].as_subclass(torch.Tensor))
        assert (panoptic == IGNORE).equal(mask == IGNORE)
        expected = mask[labelled] * PANOPTIC_BASE + owner[labelled]
        assert panoptic[labelled].equal(expected)
        for n, (inside, box) in enumerate(zip(sample["masks"], sample["boxes"], strict=True), 1):
            assert inside.equal(owner == n)
            rows, columns = inside.nonzero().unbind(1)
            corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [float(x) for x in corners]
            assert inside.sum() >= 24


def test_the_boundary_is_where_the_next_pixel_belongs_to_something_else():
    sample = Scenes(1)[0]
    owner = sample["instance_map"]
    for row in range(95):
        for column in range(95):
            other = owner[row, column] not in (owner[row + 1, column],) or (
                owner[row, column] != owner[row, column + 1]
            )
            assert bool(sample["boundary"][row, column]) == bool(other)


def test_void_is_a_thin_ring_around_objects():
    void = others = 0
    for sample in (Scenes(20)[i] for i in range(20)):
        near = torch.nn.functional.max_pool2d(sample["boundary"][None].float(), 5, 1, 2)[0] > 0
        ring = sample["mask"] == IGNORE
        void += int(ring.sum())
        others += int((ring & ~near).sum())
    assert 0.05 < void / (20 * 96 * 96) < 0.15
    assert others / void < 0.02  # what is left of objects that are nearly hidden


def test_all_classes_occur_in_all_sizes_and_images_stay_in_range():
    pixels = torch.zeros(len(CLASSES))
    areas = []
    for sample in (Scenes(60)[i] for i in range(60)):
        assert 0 <= sample["image"].min() <= sample["image"].max() <= 1
        pixels += sample["mask"][sample["mask"] != IGNORE].bincount(minlength=len(CLASSES))
        areas += sample["masks"].sum((1, 2)).tolist()
    assert (pixels / pixels.sum()).min() > 0.02
    assert np.quantile(areas, 0.95) / np.quantile(areas, 0.03) > 12


def test_a_threshold_cannot_find_the_objects():
    """The best single threshold on brightness, chosen in hindsight, stays below 0.6 mean IoU."""
    from segedu.metrics.confusion import ConfusionMatrix

    samples = [Scenes(40, seed=3)[i] for i in range(40)]
    best = 0.0
    for threshold in torch.linspace(0.05, 0.95, 19):
        for darker in (False, True):
            cm = ConfusionMatrix(2)
            for sample in samples:
                mask = sample["mask"].as_subclass(torch.Tensor)
                bright = sample["image"].as_subclass(torch.Tensor).mean(0) > threshold
                truth = mask.where(mask == IGNORE, (mask > 0).long())
                cm.update((bright ^ darker).long(), truth)
            best = max(best, cm.mean_iou())
    assert best < 0.6


def test_difficulty_adds_noise():
    def roughness(difficulty):
        image = Scenes(8, difficulty=difficulty)
        steps = [image[i]["image"].diff(dim=2).abs().median().item() for i in range(8)]
        return sum(steps) / 8

    assert roughness(0.0) < roughness(0.5) < roughness(1.0)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"length": -1}, "length is -1"),
        ({"length": 1, "size": 8}, "size is 8"),
        ({"length": 1, "seed": -3}, "seed is -3"),
        ({"length": 1, "difficulty": 1.5}, "difficulty is 1.5"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, named):
    with pytest.raises(InputError, match=named):
        Scenes(**arguments)


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_beyond_the_end_is_an_index_error(index):
    with pytest.raises(IndexError):
        Scenes(5)[index]


def test_a_batch_stacks_the_maps_and_lists_the_rest():
    batch = collate([Scenes(3)[i] for i in range(3)])
    assert batch["image"].shape == (3, 3, 96, 96)
    assert batch["panoptic"].shape == (3, 96, 96)
    assert [len(boxes) for boxes in batch["boxes"]] == [len(labels) for labels in batch["labels"]]


@pytest.mark.parametrize("name", SHAPES)
def test_the_area_of_an_outline(name):
    outline, area = SHAPES[name]
    u, v, pixel = plane()
    assert (outline(u, v) < 0).sum() * pixel == pytest.approx(area, rel=0.01)


@pytest.mark.parametrize("name", SHAPES)
def test_an_outline_touches_the_unit_circle_from_within(name):
    u, v, _ = plane()
    inside = SHAPES[name][0](u, v) < 0
    assert np.sqrt(u * u + v * v)[inside].max() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", SHAPES)
def test_across_a_side_the_distance_grows_as_fast_as_the_way(name):
    """Near its outline a shape's function measures true distance, so that rings are evenly wide."""
    u, v, _ = plane()
    distance = SHAPES[name][0](u, v)
    down, right = np.gradient(distance, 2.4 / 480)
    near = np.abs(distance) < 0.05
    slope = np.sqrt(down**2 + right**2)[near]
    assert np.median(slope) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("texture", TEXTURES, ids=lambda texture: texture.__name__)
def test_a_texture_mixes_both_colours_and_stays_between_them(texture):
    u, v, _ = plane()
    share = texture(u, v, 3.0)
    assert share.min() == 0 or texture is textures.plain
    assert share.max() == 1
    assert 0.2 < share[u * u + v * v < 1].mean() < 0.8


def test_stripes_and_bands_repeat_with_their_scale():
    u, v, _ = plane()
    period = round(0.25 / (2.4 / 480))
    np.testing.assert_allclose(
        textures.stripes(u, v, 4.0)[:, period:], textures.stripes(u, v, 4.0)[:, :-period], atol=1e-4
    )
    middle = textures.bands(u, v, 4.0)[240, 240:]
    np.testing.assert_allclose(middle[period:], middle[:-period], atol=1e-4)


def test_checks_swap_colours_half_a_period_on():
    u, v, _ = plane()
    half = round(0.5 / 4 / (2.4 / 480))
    share = textures.checks(u, v, 4.0)
    np.testing.assert_allclose(share[:, half:], 1 - share[:, :-half], atol=1e-4)


def test_clouds_are_smooth_and_end_where_their_coarse_points_are():
    hills = textures.clouds(Stream(1), 64, octaves=1)
    assert np.abs(np.diff(hills)).max() < 0.05
    corners = Stream(1).grid(2, 2)
    np.testing.assert_allclose(hills[[0, 0, -1, -1], [0, -1, 0, -1]], corners.ravel(), atol=0.01)


def test_the_stream_of_a_key_never_changes():
    assert Stream(3, 4).fractions(2) == [0.8983874397838618, 0.45577517933777767]
    assert Stream(3, 4).fractions(2) != Stream(4, 3).fractions(2)


def test_streams_are_uniform_and_noise_has_mean_0_and_deviation_1():
    grid, noise = Stream(5).grid(300, 301), Stream(6).noise(3, 100, 101)
    assert (grid.shape, noise.shape) == ((300, 301), (3, 100, 101))
    assert np.histogram(grid, bins=10, range=(0, 1))[0] == pytest.approx(9030, rel=0.05)
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
    draws = [Stream(9, i).below(3) for i in range(300)]
    assert np.bincount(draws) == pytest.approx(100, abs=30)
    assert 2 <= Stream(8).between(2, 5) < 5
