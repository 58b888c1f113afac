import pytest
import torch
from torchvision import tv_tensors

from segedu.data.sample import IGNORE
from segedu.data.scenes import Scenes
from segedu.data.transforms import Augmented, mixed_seed, random_crop, resize


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
