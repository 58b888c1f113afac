import pytest
import torch
from torchvision import tv_tensors

from segedu.data.instances import boxes_around
from segedu.data.sample import IGNORE
from segedu.data.scenes import Scenes
from segedu.data.transforms import (
    SMALLEST,
    Augmented,
    mixed_seed,
    random_crop,
    random_crop_of_objects,
    resize,
)


def striped(height=40, width=60):
    """A picture whose red channel is its mask: whatever moves one must move the other."""
    mask = torch.arange(height)[:, None] // 4 * 10 + torch.arange(width)[None] // 4 % 10
    image = torch.stack([mask / 200] * 3).float()
    return {"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(mask)}


class One(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return striped()


@pytest.mark.parametrize("upright", [False, True])
def test_image_and_mask_are_cut_and_turned_alike(upright):
    data = Augmented(One(), random_crop(24, 32, upright=upright))
    seen = set()
    for epoch in range(6):
        data.epoch = epoch
        sample = data[0]
        assert sample["mask"].shape == (24, 32)
        assert torch.allclose(sample["image"][0] * 200, sample["mask"].float(), atol=1e-3)
        seen.add(tuple(sample["mask"].flatten().tolist()))
    assert len(seen) == 6


def test_what_must_stay_upright_does():
    def falls(transform):
        data = Augmented(One(), transform)
        down = []
        for epoch in range(12):
            data.epoch = epoch
            mask = data[0]["mask"]
            down.append(bool(mask[-1].float().mean() > mask[0].float().mean()))
        return down

    assert all(falls(random_crop(24, 32, upright=True)))
    assert not all(falls(random_crop(24, 32)))


def test_square_crops_are_turned_by_quarters_too():
    """Of a picture without symmetry the eight turns and flips are eight pictures."""
    sample = striped(24, 24)
    data = Augmented(torch.utils.data.Subset([sample], [0]), random_crop(24, 24))
    seen = set()
    for epoch in range(60):
        data.epoch = epoch
        turned = data[0]
        assert torch.allclose(turned["image"][0] * 200, turned["mask"].float(), atol=1e-3)
        seen.add(tuple(turned["mask"].flatten().tolist()))
    assert len(seen) == 8


def test_beyond_the_picture_there_is_no_label():
    sample = Augmented(One(), random_crop(64, 80))[0]
    outside = sample["mask"] == IGNORE
    assert outside.sum() == 64 * 80 - 40 * 60
    assert (sample["image"][:, outside] == 0).all()


def test_scaling_makes_no_new_classes():
    data = Augmented(One(), random_crop(30, 30, scale=(0.5, 2.0)))
    known = set(striped()["mask"].unique().tolist()) | {IGNORE}
    sizes = set()
    for epoch in range(8):
        data.epoch = epoch
        mask = data[0]["mask"]
        assert set(mask.unique().tolist()) <= known
        sizes.add(len(mask.unique()))
    assert len(sizes) > 2


def test_colours_change_and_masks_do_not():
    plain, coloured = (
        Augmented(One(), random_crop(40, 60, upright=True, colour=colour))[0]
        for colour in (0.0, 0.5)
    )
    assert set(plain["mask"].unique().tolist()) == set(coloured["mask"].unique().tolist())
    assert not torch.allclose(coloured["image"][0] * 200, coloured["mask"].float(), atol=1)


def test_what_becomes_of_a_sample_depends_on_seed_epoch_and_index_alone():
    crop = random_crop(48, 48, scale=(0.7, 1.4), colour=0.3)
    data = Augmented(Scenes(3), crop, seed=1, epoch=2)
    first = data[1]
    torch.rand(7)
    data[0]
    assert data[1]["image"].equal(first["image"])
    for other in (
        Augmented(Scenes(3), crop, seed=2, epoch=2)[1],
        Augmented(Scenes(3), crop, seed=1, epoch=3)[1],
    ):
        assert not other["image"].equal(first["image"])
    assert len(data) == 3


def test_torchs_own_generator_is_left_as_it_was():
    data = Augmented(Scenes(1), random_crop(48, 48, scale=(0.7, 1.4), colour=0.3))
    before = torch.random.get_rng_state()
    data[0]
    assert torch.random.get_rng_state().equal(before)


def test_neighbouring_numbers_give_unrelated_seeds():
    seeds = {mixed_seed(a, b, c) for a in range(8) for b in range(8) for c in range(8)}
    assert len(seeds) == 512
    flipped = [bin(mixed_seed(1, 2, i) ^ mixed_seed(1, 2, i + 1)).count("1") for i in range(200)]
    assert 28 < sum(flipped) / 200 < 36


def test_a_resized_sample_has_the_size_asked_for_and_only_its_own_classes():
    sample = resize(20, 30)(striped())
    assert sample["image"].shape == (3, 20, 30)
    assert set(sample["mask"].unique().tolist()) <= set(striped()["mask"].unique().tolist())


def test_a_scene_keeps_image_and_mask_only():
    assert set(Augmented(Scenes(1), random_crop(32, 32))[0]) == {"image", "mask"}


def squares():
    """A picture of four squares whose grey is their number; the last is a crowd on the ground."""
    masks = torch.zeros(4, 40, 60, dtype=torch.bool)
    for n in range(3):
        masks[n, 5 + 10 * n : 13 + 10 * n, 4 + 18 * n : 16 + 18 * n] = True
    masks[3, :2, :12] = True
    grey = (masks[:3] * torch.tensor([1, 2, 3])[:, None, None]).sum(0) / 4
    return {
        "image": tv_tensors.Image(grey.expand(3, 40, 60).clone()),
        "mask": tv_tensors.Mask(masks.any(0).long()),
        "boxes": boxes_around(masks),
        "labels": torch.tensor([1, 2, 3, 1]),
        "masks": tv_tensors.Mask(masks),
        "crowd": torch.tensor([False, False, False, True]),
    }


class Squares(One):
    def __getitem__(self, index):
        return squares()


def test_objects_are_cut_and_turned_with_their_picture():
    data = Augmented(Squares(), random_crop_of_objects(32, 32))
    counts = set()
    for epoch in range(12):
        data.epoch = epoch
        sample = data[0]
        assert sample["image"].shape == (3, 32, 32)
        assert sample.keys() == {"image", "boxes", "labels", "masks"}
        assert sample["boxes"].equal(boxes_around(sample["masks"].as_subclass(torch.Tensor)))
        counts.add(len(sample["labels"]))
        for label, mask in zip(sample["labels"], sample["masks"], strict=True):
            assert (sample["image"][:, mask] == label / 4).all()
            assert mask.sum() >= SMALLEST
    assert len(counts) > 1  # some are cut away
    assert max(counts) <= 3  # the crowd is never kept


def test_a_window_that_is_larger_than_the_picture_shows_all_of_it():
    data = Augmented(Squares(), random_crop_of_objects(64, 96, upright=True))
    places = set()
    for epoch in range(6):
        data.epoch = epoch
        sample = data[0]
        assert sample["masks"].flatten(1).sum(1).tolist() == [96, 96, 96]
        places.add(tuple(sample["boxes"][0].tolist()))
    assert len(places) > 3


def test_objects_are_enlarged_within_the_range():
    data = Augmented(Squares(), random_crop_of_objects(160, 160, scale=(1.5, 3.0), upright=True))
    sides = []
    for epoch in range(12):
        data.epoch = epoch
        sample = data[0]
        boxes = sample["boxes"][sample["labels"] == 2]
        sides += (boxes[:, 3] - boxes[:, 1]).tolist()
    assert 11 <= min(sides) < 16
    assert 20 < max(sides) <= 25
