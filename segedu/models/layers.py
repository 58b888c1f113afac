"""Layers that several models are built from."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Gives features: from images (B, 3, H, W) in [0, 1] to (B, C, H', W') by stride.

    Of each stride they are the deepest; a stride that does not divide the image is rounded up.

    Attributes:
        channels: C, by stride.
    """

    channels: dict[int, int]


class Normalize(nn.Module):
    """(image - mean) / std, channel by channel: part of the model, so that nobody can forget it.

    The two are buffers that move with the model, and are exported with it, but stay out of its
    `state_dict`: they are settings, not something learned.

    Args:
        mean: One number per channel, for an image in [0, 1].
        std: The same.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, image: Float[Tensor, "b in h w"]) -> Float[Tensor, "b in h w"]:
        """The image with roughly mean 0 and standard deviation 1."""
        return (image - self.mean) / self.std


class Shrunk(nn.Module):
    """A model that sees the image at 1/`factor` of its size: `factor` squared times less work.

    What is finer than `factor` pixels is lost, and the model sees `factor` times further.

    Args:
        model: From (B, 3, H, W) images to (B, C, H, W) logits.
        factor: 2 or more.
    """

    def __init__(self, model: nn.Module, factor: int) -> None:
        super().__init__()
        self.model = model
        self.factor = factor

    def forward(self, image: Float[Tensor, "b in h w"]) -> Float[Tensor, "b c h w"]:
        """The model's logits for the shrunk image, enlarged again bilinearly."""
        small = F.avg_pool2d(image, self.factor, ceil_mode=True, count_include_pad=False)
        size = [self.factor * length for length in small.shape[-2:]]
        logits = F.interpolate(self.model(small), size=size, mode="bilinear", align_corners=False)
        return logits[..., : image.shape[-2], : image.shape[-1]]


class Views(nn.Module):
    """A model that looks at a picture several times to predict: at other sizes, and mirrored.

    In training it looks once, as it does without this.

    Args:
        model: From (B, 3, H, W) images to (B, C, H, W) logits.
        scales: By what factors the picture is enlarged, one look each; 1 for its own size. Each
            look is taken twice, the second time at the mirror image.
    """

    def __init__(self, model: nn.Module, scales: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.scales = tuple(scales)

    def forward(self, image: Float[Tensor, "b in h w"]) -> Float[Tensor, "b c h w"]:
        """The logits; to predict, the logarithm of the views' mean probabilities."""
        if self.training:
            logits: Tensor = self.model(image)
            return logits
        looks = [image, image.flip(-1)]
        views = [self._seen(look, scale) for scale in self.scales for look in looks]
        views[1::2] = [view.flip(-1) for view in views[1::2]]
        return torch.stack(views).mean(dim=0).log()

    def _seen(self, image: Tensor, scale: float) -> Tensor:
        """The probabilities (B, C, H, W) that the model gives to the picture at a scale."""
        size = [max(1, round(scale * length)) for length in image.shape[-2:]]
        scaled = F.interpolate(image, size=size, mode="bilinear", antialias=True)
        return enlarged(self.model(scaled).float(), image).softmax(dim=1)


def conv_norm_relu(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    """A 3x3 convolution (no bias: the normalisation has one), batch normalisation and ReLU."""
    return (
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def enlarged(
    x: Float[Tensor, "b c h w"], like: Float[Tensor, "b d h2 w2"], *, corners: bool = False
) -> Float[Tensor, "b c h2 w2"]:
    """`x` enlarged bilinearly to the height and width of `like`.

    Args:
        x: Features or logits.
        like: Gives the size.
        corners: Whether the centres of the corner pixels keep their places (align_corners), as some
            networks were trained; otherwise the corners of the picture do.
    """
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=corners)


def in_32_bits(x: Tensor) -> Tensor:
    """`x` in float32 if it has 16 bits, as in mixed precision: places and scores want more."""
    return x.float() if torch.finfo(x.dtype).bits < 32 else x


def renamed_prefixes(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """`state` with the beginnings of its names replaced, each name's first match once."""

    def renamed(name: str) -> str:
        for theirs, ours in names.items():
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
        return name

    return {renamed(name): value for name, value in state.items()}


def bilinear_upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution, channel by channel, that begins as bilinear enlargement and learns.

    At the picture's rim zeros stand in for what lies outside, so there the values begin smaller.

    Args:
        channels: In and out.
        factor: By which height and width grow; even.

    Source: Long et al., "Fully Convolutional Networks", CVPR 2015, section 3.3.
    """
    up = nn.ConvTranspose2d(
        channels,
        channels,
        2 * factor,
        stride=factor,
        padding=factor // 2,
        groups=channels,
        bias=False,
    )
    distance = (torch.arange(2 * factor) + 0.5 - factor).abs() / factor  # from the kernel's middle
    tent = 1 - distance
    with torch.no_grad():
        up.weight.copy_((tent[:, None] * tent).expand_as(up.weight))
    return up
