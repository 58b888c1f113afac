import jaxtyping
import pytest
import torch
from torch import nn

from segedu.errors import InputError
from segedu.losses import cross_entropy_loss
from segedu.models.layers import Normalize, Shrunk, Views
from segedu.models.registry import build
from segedu.models.unet import UNet


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (8, 100), (1, 1), (1, 5), (2, 3)])
def test_scores_have_the_size_of_the_image(size):
    model = UNet(5, widths=(4, 8, 16)).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, 5, *size)


def test_every_parameter_learns():
    model = UNet(3, widths=(4, 8, 16))
    cross_entropy_loss(model(torch.rand(2, 3, 16, 16)), torch.randint(3, (2, 16, 16))).backward()
    still = [name for name, p in model.named_parameters() if not p.grad.any()]
    assert still == []


def test_a_pixel_sees_as_far_as_the_coarsest_level_reaches():
    model = UNet(2, widths=(4, 8, 16)).eval()
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    model(image)[0, 0, 32, 32].backward()
    seen = image.grad.abs().sum((0, 1)).nonzero()
    assert (seen.max(0).values - seen.min(0).values).tolist() == [43, 43]


def test_an_image_without_a_batch_is_refused():
    with pytest.raises(jaxtyping.TypeCheckError):
        UNet(2)(torch.rand(3, 32, 32))


def test_detail_crosses_without_passing_the_coarse_levels():
    model = UNet(2, widths=(4, 8, 16)).eval()
    for coarse in model.down[1:]:
        coarse.register_forward_hook(lambda _module, _input, output: torch.zeros_like(output))
    a, b = torch.rand(2, 1, 3, 16, 16)
    assert not model(a).equal(model(b))


def test_what_is_far_arrives_by_the_coarse_levels_alone():
    model = UNet(2, widths=(4, 8, 16)).eval()
    image = torch.rand(1, 3, 32, 32)
    changed = image.clone()
    changed[..., 0, 0] = 0
    near = model.down[0](image), model.down[0](changed)
    assert near[0][..., 12, 12].equal(near[1][..., 12, 12])
    assert not model(image)[..., 12, 12].equal(model(changed)[..., 12, 12])


@pytest.mark.parametrize(("classes", "widths"), [(0, (4, 8)), (2, (4,))])
def test_too_few_classes_or_levels_are_refused(classes, widths):
    with pytest.raises(InputError, match="two levels"):
        UNet(classes, widths=widths)


def test_the_image_is_normalised_inside_but_the_state_dict_does_not_say_so():
    model = UNet(2, in_channels=1, widths=(4, 8))
    image = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(model.normalize(image), (image - 0.5) / 0.25)
    assert not [name for name in model.state_dict() if "normalize" in name]


def test_normalising_a_picture_with_its_own_statistics_gives_mean_0_and_deviation_1():
    image = torch.rand(4, 3, 32, 32) * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    out = Normalize(image.mean((0, 2, 3)).tolist(), image.std((0, 2, 3)).tolist())(image)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(3))


def test_a_model_is_built_by_name_and_an_unknown_name_is_refused():
    model = build("unet", 4, widths=(4, 8))
    assert model.classify.weight.shape == (4, 4, 1, 1)
    with pytest.raises(InputError, match="did you mean unet"):
        build("unett", 4)


def test_weights_fit_a_unet_of_the_paper():
    """1024 channels at the coarsest level and 31 million weights, as Ronneberger et al. have it."""
    model = UNet(2, in_channels=1, widths=(64, 128, 256, 512, 1024))
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 2 * 9 + 1  # the paper's 23 less its four up-convolutions


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1), (2, 5)])
def test_a_shrunk_model_scores_every_pixel(size):
    model = build("unet", 5, widths=(4, 8), shrink=2).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, 5, *size)


def test_a_shrunk_model_sees_the_mean_of_each_block_of_pixels():
    seen = []

    class Spy(nn.Module):
        def forward(self, image):
            seen.append(image)
            return image

    image = torch.arange(24.0).reshape(1, 1, 4, 6)
    logits = Shrunk(Spy(), 2)(image)
    assert seen[0].tolist() == [[[[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]]]
    # halfway between the centres 0.5 and 2.5 stand 1/4 and 3/4 of the way
    assert logits[0, 0, 0].tolist() == pytest.approx([3.5, 4.0, 5.0, 6.0, 7.0, 7.5])
    assert logits[0, 0, :, 0].tolist() == pytest.approx([3.5, 6.5, 12.5, 15.5])


def test_a_shrunk_model_averages_only_the_pixels_there_are():
    class Same(nn.Module):
        def forward(self, image):
            return image

    assert torch.allclose(Shrunk(Same(), 4)(torch.ones(1, 3, 5, 7)), torch.ones(1, 3, 5, 7))


def test_a_model_normalises_its_images():
    model = UNet(2, widths=(4, 8)).eval()
    image = torch.rand(1, 3, 8, 8)
    logits = model(image)
    model.normalize.mean, model.normalize.std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    assert torch.allclose(model((image - 0.5) / 0.25), logits, atol=1e-6)


class Brightness(nn.Module):
    """Two logits for each pixel: its value, and its value in the column to the left."""

    def forward(self, image):
        return torch.cat([image, image.roll(1, dims=-1)], dim=1)


def test_views_are_averaged_as_probabilities_in_the_pictures_own_place():
    image = torch.tensor([[[[0.0, 1.0, 3.0, 6.0]]]])
    right = image.roll(-1, dims=-1)  # what stands to the left in the mirror
    left = image.roll(1, dims=-1)
    expected = (torch.sigmoid(image - left) + torch.sigmoid(image - right)) / 2
    logits = Views(Brightness(), (1.0,)).eval()(image)
    assert torch.allclose(logits.softmax(dim=1)[:, :1], expected)
    assert torch.allclose(logits.exp().sum(dim=1), torch.ones(1, 1, 4))


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (2, 5)])
def test_a_model_of_several_views_scores_every_pixel(size):
    model = build("unet", 5, widths=(4, 8), views=(0.5, 1.5)).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, 5, *size)


def test_each_scale_is_seen_at_its_size_and_mirrored():
    sizes = []

    class Spy(nn.Module):
        def forward(self, image):
            sizes.append(tuple(image.shape[-2:]))
            return image

    Views(Spy(), (0.5, 1.5)).eval()(torch.rand(1, 2, 20, 30))
    assert sizes == [(10, 15), (10, 15), (30, 45), (30, 45)]


def test_in_training_there_is_one_view():
    model = build("unet", 5, widths=(4, 8), views=(0.5, 1.5)).train()
    image = torch.rand(2, 3, 16, 16)
    assert model(image).equal(model.model(image))
