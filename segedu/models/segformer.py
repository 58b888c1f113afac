"""SegFormer-B0: attention over shortened sequences, and a head of plain matrices; for chapter 15.

Source: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers", NeurIPS 2021, sections 3.1 and 3.2, table 6. https://arxiv.org/abs/2105.15203
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segedu.errors import InputError
from segedu.models.layers import Backbone, Normalize, enlarged

HEAD = 256
"""Channels to which the head brings the features of every stride."""
SMALLEST = 29
"""Height and width below which the first stage's map cannot be shortened eightfold."""
DROP_PATH = 0.1
"""Share of the pictures that pass by the last block in training; earlier blocks, fewer."""

Tokens = Float[Tensor, "b n c"]


@dataclass(frozen=True)
class Stage:
    """A row of the paper's table 6.

    Attributes:
        channels: Of a token.
        heads: Of attention.
        shorten: By what factor height and width shrink for keys and values.
        kernel: Of the convolution that makes the tokens; they overlap.
        stride: Of that convolution.
        blocks: How many.
    """

    channels: int
    heads: int
    shorten: int
    kernel: int = 3
    stride: int = 2
    blocks: int = 2


B0 = (Stage(32, 1, 8, kernel=7, stride=4), Stage(64, 2, 4), Stage(160, 5, 2), Stage(256, 8, 1))


class Attention(nn.Module):
    """Each token asks all tokens of a smaller picture, and takes a mean of what they have.

    Args:
        channels: Of a token.
        heads: Independent questions; they share out the channels.
        shorten: By what factor height and width shrink before they are asked; 1 for not at all.

    Source: section 3.1, equations 1 and 2.
    """

    def __init__(self, channels: int, heads: int, shorten: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.join = nn.Linear(channels, channels)
        self.shorten: nn.Conv2d | None = None
        if shorten > 1:
            self.shorten = nn.Conv2d(channels, channels, shorten, stride=shorten)
            self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tokens, height: int, width: int) -> Tokens:
        """The tokens' answers, for tokens that lie in `height` rows of `width`."""
        asked = x
        if self.shorten is not None:
            asked = self.norm(as_tokens(self.shorten(as_map(x, height, width))))
        q, k, v = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (b, heads, n, c/heads)
            for layer, tokens in ((self.query, x), (self.key, asked), (self.value, asked))
        )
        return self.join(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MixFFN(nn.Module):
    """Widen, look at the eight neighbours, narrow: so tokens know where they are.

    Source: section 3.1, equation 3; it takes the place of position codes.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 4 * channels
        self.widen = nn.Linear(channels, wide)
        self.neighbours = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.narrow = nn.Linear(wide, channels)

    def forward(self, x: Tokens, height: int, width: int) -> Tokens:
        """The tokens after it, for tokens that lie in `height` rows of `width`."""
        wide = as_tokens(self.neighbours(as_map(self.widen(x), height, width)))
        return self.narrow(F.gelu(wide))


class Block(nn.Module):
    """Attention, then the mixing network, each added to what came in."""

    def __init__(self, stage: Stage, drop: float) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(stage.channels)
        self.attention = Attention(stage.channels, stage.heads, stage.shorten)
        self.before_mix = nn.LayerNorm(stage.channels)
        self.mix = MixFFN(stage.channels)
        self.drop = drop

    def forward(self, x: Tokens, height: int, width: int) -> Tokens:
        """The tokens after the block."""
        x = x + self._some(self.attention(self.before_attention(x), height, width))
        return x + self._some(self.mix(self.before_mix(x), height, width))

    def _some(self, x: Tokens) -> Tokens:
        """In training, 0 for some pictures of the batch and more for the others (stochastic depth).

        Source: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016, section 3.
        """
        if not self.training or not self.drop:
            return x
        keep = 1 - self.drop
        return x / keep * (torch.rand(len(x), 1, 1, device=x.device) + keep).floor().to(x)


class MixTransformer(Backbone):
    """The encoder: features of an image in [0, 1] at strides 4, 8, 16 and 32.

    Attributes:
        channels: Channels of the features, by stride.
    """

    def __init__(self, stages: tuple[Stage, ...] = B0) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.channels: dict[int, int] = {}
        self.tokens, self.token_norms, self.norms = (nn.ModuleList() for _ in range(3))
        self.blocks = nn.ModuleList()
        drops = torch.linspace(0, DROP_PATH, sum(stage.blocks for stage in stages)).tolist()
        channels, stride = 3, 1
        for stage in stages:
            padding = stage.kernel // 2
            conv = nn.Conv2d(channels, stage.channels, stage.kernel, stage.stride, padding)
            self.tokens.append(conv)
            self.token_norms.append(nn.LayerNorm(stage.channels))
            own = [Block(stage, drops.pop(0)) for _ in range(stage.blocks)]
            self.blocks.append(nn.ModuleList(own))
            self.norms.append(nn.LayerNorm(stage.channels))
            channels, stride = stage.channels, stride * stage.stride
            self.channels[stride] = channels

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> dict[int, Tensor]:
        """(B, channels[stride], H / stride, W / stride) for each stride, rounded up.

        Raises:
            InputError: If the image is smaller than `SMALLEST`.
        """
        if min(image.shape[-2:]) < SMALLEST:
            raise InputError(
                f"SegFormer: an image of {image.shape[-2]} x {image.shape[-1]} pixels; expected "
                f"{SMALLEST} x {SMALLEST} or more, which give the first stage a map of 8 x 8"
            )
        maps, features = self.normalize(image), {}
        for stride, conv, token_norm, blocks, norm in zip(
            self.channels, self.tokens, self.token_norms, self.blocks, self.norms, strict=True
        ):
            maps = conv(maps)
            height, width = maps.shape[-2:]
            x = token_norm(as_tokens(maps))
            for block in blocks:  # type: ignore[attr-defined]  # a ModuleList
                x = block(x, height, width)
            maps = features[stride] = as_map(norm(x), height, width)
        return features


class SegFormer(nn.Module):
    """Class scores from all strides, each brought to `HEAD` channels and to stride 4, and joined.

    Args:
        num_classes: C, the number of classes.
        backbone: Gives features of an image in [0, 1] by stride.
    """

    def __init__(self, num_classes: int, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.bring = nn.ModuleList(
            nn.Linear(channels, HEAD) for channels in backbone.channels.values()
        )
        self.fuse = nn.Conv2d(HEAD * len(self.bring), HEAD, 1, bias=False)
        self.norm = nn.BatchNorm2d(HEAD)
        self.dropout = nn.Dropout(0.1)
        self.classify = nn.Conv2d(HEAD, num_classes, 1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Class scores (logits), at the image's resolution."""
        features = list(self.backbone(image).values())
        brought = [
            enlarged(as_map(layer(as_tokens(maps)), *maps.shape[-2:]), features[0])
            for layer, maps in zip(self.bring, features, strict=True)
        ]
        joined = self.fuse(torch.cat(brought[::-1], dim=1))
        return enlarged(self.classify(self.dropout(F.relu(self.norm(joined)))), image)


def segformer_b0(num_classes: int) -> SegFormer:
    """SegFormer-B0; 3.7 million weights. For images of at least 29 x 29."""
    return SegFormer(num_classes, MixTransformer())


def as_tokens(maps: Float[Tensor, "b c h w"]) -> Tokens:
    """A map's places, row by row."""
    return maps.flatten(2).transpose(1, 2)


def as_map(tokens: Tokens, height: int, width: int) -> Float[Tensor, "b c h w"]:
    """The map whose places, row by row, the tokens are."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, height, width)


NAMES = {
    r"segformer\.stages\.(\d)\.patch_embeddings\.proj": r"backbone.tokens.\1",
    r"segformer\.stages\.(\d)\.patch_embeddings\.layer_norm": r"backbone.token_norms.\1",
    r"segformer\.stages\.(\d)\.layer_norm": r"backbone.norms.\1",
    r"segformer\.stages\.(\d)\.blocks": r"backbone.blocks.\1",
    r"layernorm_before": "before_attention",
    r"layernorm_after": "before_mix",
    r"attention\.sequence_reduction\.sequence_reduction": "attention.shorten",
    r"attention\.sequence_reduction\.layer_norm": "attention.norm",
    r"attention\.q_proj": "attention.query",
    r"attention\.k_proj": "attention.key",
    r"attention\.v_proj": "attention.value",
    r"attention\.o_proj": "attention.join",
    r"mlp\.fc1": "mix.widen",
    r"mlp\.dwconv\.dwconv": "mix.neighbours",
    r"mlp\.fc2": "mix.narrow",
    r"decode_head\.linear_projections\.(\d)\.proj": r"bring.\1",
    r"decode_head\.linear_fuse": "fuse",
    r"decode_head\.batch_norm": "norm",
    r"decode_head\.classifier": "classify",
}
"""Patterns of the Transformers library's names (release 5), and ours."""


def from_peer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of Transformers' `SegformerForSemanticSegmentation`, for `segformer_b0`."""
    renamed = {}
    for name, value in state.items():
        ours = name
        for pattern, replacement in NAMES.items():
            ours = re.sub(pattern, replacement, ours)
        renamed[ours] = value
    return renamed
