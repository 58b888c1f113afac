"""SegFormer-B0 against the Transformers library's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from segedu.errors import InputError
from segedu.losses import cross_entropy_loss
from segedu.models.layers import Normalize
from segedu.models.segformer import (
    Attention,
    Block,
    Stage,
    as_map,
    as_tokens,
    from_peer,
    segformer_b0,
)


@pytest.fixture(scope="module")
def twins():
    """Ours and the peer's, with the same weights, none of them 0 or 1, and no chance."""
    torch.manual_seed(0)
    config = SegformerConfig(num_labels=5, drop_path_rate=0.0, classifier_dropout_prob=0.0)
    peer, ours = SegformerForSemanticSegmentation(config), segformer_b0(5)
    for module in peer.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(module.weight, 0, 0.05)
        if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    ours.load_state_dict(from_peer(peer.state_dict()), strict=True)
    return ours, peer


def logits_of(peer, image):
    """The peer wants a normalised image, and gives logits at stride 4."""
    logits = peer(Normalize()(image)).logits
    return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 120), (29, 29)])
def test_the_peers_weights_give_the_peers_logits(twins, size):
    ours, peer = twins
    ours.eval(), peer.eval()
    image = torch.rand(2, 3, *size)
    expected = logits_of(peer, image)
    assert (ours(image) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_in_training_the_gradients_are_the_peers(twins):
    ours, peer = twins
    image, mask = torch.rand(2, 3, 64, 64), torch.randint(5, (2, 64, 64))
    for module in ours.modules():
        if isinstance(module, Block):
            module.drop = 0.0
    ours.dropout.p = 0.0
    for model, logits in ((ours, lambda: ours(image)), (peer, lambda: logits_of(peer, image))):
        model.train()
        model.zero_grad()
        cross_entropy_loss(logits(), mask).backward()
    theirs = from_peer({name: weight.grad for name, weight in peer.named_parameters()})
    for name, weight in ours.named_parameters():
        size = theirs[name].abs().max() + 1e-4  # a bias that batch norm takes off has none
        assert (weight.grad - theirs[name]).abs().max() < 1e-3 * size, name


@torch.inference_mode()
def test_attention_is_a_mean_of_values_weighted_by_a_softmax():
    attention = Attention(6, heads=2, shorten=1)
    x = torch.rand(1, 4, 6)
    q, k, v = (layer(x)[0] for layer in (attention.query, attention.key, attention.value))
    answers = []
    for head in (slice(0, 3), slice(3, 6)):
        weights = (q[:, head] @ k[:, head].T / 3**0.5).softmax(dim=1)
        answers.append(weights @ v[:, head])
    expected = attention.join(torch.cat(answers, dim=1))
    assert torch.allclose(attention(x, 2, 2)[0], expected, atol=1e-6)


def test_tokens_lie_row_by_row():
    maps = torch.rand(2, 3, 4, 5)
    assert as_tokens(maps)[1, 7].equal(maps[1, :, 1, 2])
    assert as_map(as_tokens(maps), 4, 5).equal(maps)


def test_a_dropped_path_leaves_the_picture_and_keeps_the_mean():
    block = Block(Stage(8, 1, 1), drop=0.5).train()
    x = torch.ones(4000, 1, 8)
    kept = block._some(x)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert kept.mean().item() == pytest.approx(1, abs=0.1)
    assert block.eval()._some(x).equal(x)


def test_later_blocks_are_dropped_more_often():
    drops = [block.drop for stage in segformer_b0(2).backbone.blocks for block in stage]
    assert drops == pytest.approx([i * 0.1 / 7 for i in range(8)])


def test_too_small_an_image_is_refused():
    with pytest.raises(InputError, match="an image of 28 x 64 pixels; expected 29 x 29 or more"):
        segformer_b0(2)(torch.rand(1, 3, 28, 64))
