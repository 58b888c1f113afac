"""Mask R-CNN with its twin's weights finds what the twin finds, and learns by its gradients."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection as tvd

from segedu.data.scenes import Scenes
from segedu.errors import InputError
from segedu.models.mask_rcnn import model as ours
from segedu.models.mask_rcnn.batching import Resizing
from segedu.models.mask_rcnn.model import Settings

CLASSES = 7
SIZES = ((120, 180), (200, 131), (97, 97), (64, 260), (256, 40))
SMALL = Settings(resizing=Resizing(shorter=(128,), longest=224))
NAMES = ["maskrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn"]


def twins(
    name: str, *, operators: str = "written", stirred: bool = True
) -> tuple[nn.Module, nn.Module]:
    """Both with the same random weights, stirred so that objects of every class are found."""
    torch.manual_seed(0)
    peer = getattr(tvd, name)(
        weights=None, weights_backbone=None, num_classes=CLASSES, min_size=128, max_size=224
    )
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.2, 0.6)
    if stirred:
        stir(peer)
    model = getattr(ours, name)(CLASSES, settings=SMALL, operators=operators)
    model.load_state_dict(peer.state_dict(), strict=True)
    return model, peer


def stir(peer: nn.Module) -> None:
    """Spread logits and boxes, as training would."""
    for layer, spread in ((peer.rpn.head.cls_logits, 0.3), (peer.rpn.head.bbox_pred, 0.05)):
        nn.init.normal_(layer.weight, std=spread)
    nn.init.normal_(peer.roi_heads.box_predictor.cls_score.weight, std=1.0)
    nn.init.normal_(peer.roi_heads.box_predictor.bbox_pred.weight, std=0.3)


def pictures() -> list[Tensor]:
    made = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=made) for size in SIZES]


@pytest.fixture(scope="module", params=NAMES)
def evaluated(request) -> tuple[nn.Module, nn.Module]:
    model, peer = twins(request.param)
    return model.eval(), peer.eval()


@torch.inference_mode()
def test_with_the_twins_weights_the_twins_objects_are_found_in_the_same_order(evaluated):
    model, peer = evaluated
    for found, theirs in zip(model(pictures()), peer(pictures()), strict=True):
        assert len(theirs["labels"]) > 5
        assert found.keys() == theirs.keys()
        assert found["labels"].equal(theirs["labels"])
        assert torch.allclose(found["boxes"], theirs["boxes"], atol=1e-2, rtol=0)
        assert torch.allclose(found["scores"], theirs["scores"], atol=1e-4, rtol=0)
        if "masks" in theirs:
            assert torch.allclose(found["masks"], theirs["masks"], atol=1e-4, rtol=0)


def truth(pictures: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Objects that fit each picture: one, two, ... rectangles; none in the last."""
    found = []
    for objects, image in enumerate(pictures, start=1):
        height, width = image.shape[1:]
        masks = torch.zeros(objects % len(pictures), height, width, dtype=torch.uint8)
        boxes = torch.zeros(len(masks), 4)
        for i, mask in enumerate(masks):
            top, left = i * height // 10, i * width // 10
            bottom, right = top + height // 2, left + width // 2
            mask[top:bottom, left:right] = 1
            boxes[i] = torch.tensor([left, top, right, bottom])
        labels = torch.arange(len(masks)) % (CLASSES - 1) + 1
        found.append({"boxes": boxes, "labels": labels, "masks": masks})
    return found


@pytest.mark.parametrize("operators", ["written", "quick"])
def test_in_training_the_losses_and_gradients_are_the_twins(operators):
    """With a batch's own statistics 1e-7 in a pixel moves some gradients by a tenth."""
    both = twins(NAMES[0], operators=operators, stirred=False)
    losses = []
    for model in both:
        model.train()
        torch.manual_seed(2)  # samples are drawn alike
        losses.append(model(pictures(), truth(pictures())))
        sum(losses[-1].values()).backward()
    assert losses[0].keys() == losses[1].keys()
    for name, value in losses[1].items():
        assert losses[0][name].item() == pytest.approx(value.item(), rel=1e-5)
    theirs = dict(both[1].named_parameters())
    for name, weight in both[0].named_parameters():
        scale = theirs[name].grad.abs().max()
        assert (weight.grad - theirs[name].grad).abs().max() <= 1e-3 * scale, name


SCENES = Scenes(2, size=64, seed=3)


def small(**options) -> nn.Module:
    torch.manual_seed(0)
    return ours.maskrcnn_trunk(6, **options)


def test_the_small_one_learns_two_scenes_and_finds_most_of_their_objects():
    model = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    images = [scene["image"] for scene in SCENES]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(60):
            loss = sum(model(images, list(SCENES)).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    best = []
    for objects, scene in zip(model.eval()(images), SCENES, strict=True):
        found = objects["masks"][:, 0] >= 0.5
        for true in scene["masks"].as_subclass(Tensor):
            overlaps = (found & true).sum((1, 2)) / (found | true).sum((1, 2))
            best.append(max(overlaps.tolist(), default=0.0))
    assert sorted(best)[len(best) // 3] > 0.5


def test_a_picture_without_an_object_teaches_what_background_is():
    nothing = {
        "boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": torch.zeros(0, 64, 64)
    }  # fmt: skip
    losses = small()([torch.rand(3, 64, 64)], [nothing])
    assert losses["loss_classifier"] > 0
    assert losses["loss_objectness"] > 0
    for name in ("loss_box_reg", "loss_rpn_box_reg", "loss_mask"):
        assert losses[name] == 0
    sum(losses.values()).backward()


@torch.inference_mode()
def test_an_image_is_seen_alike_alone_and_beside_a_smaller_one():
    model = small().eval()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[1] = 3
    large, little = torch.rand(3, 64, 96), torch.rand(3, 40, 50)
    (alone,), (beside, _) = model([large]), model([large, little])
    assert len(alone["labels"]) > 0
    for part, value in alone.items():
        assert torch.allclose(beside[part], value, atol=1e-4), part


GOOD = {
    "boxes": torch.tensor([[0.0, 0, 9, 9]]),
    "labels": torch.ones(1).long(),
    "masks": torch.ones(1, 64, 64),
}


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        ([], [], "empty list"),
        ([torch.rand(64, 64)], [GOOD], r"image 0 is \(64, 64\)"),
        ([torch.zeros(3, 64, 64).byte()], [GOOD], "floating point"),
        ([torch.rand(3, 64, 64)], None, "found 0 for 1 images"),
        ([torch.rand(3, 64, 64)], [{"boxes": GOOD["boxes"]}], "target 0 has no 'labels'"),
        ([torch.rand(3, 64, 64)], [{**GOOD, "labels": torch.ones(2).long()}], "as many of each"),
        ([torch.rand(3, 64, 64)], [{**GOOD, "boxes": torch.tensor([[5.0, 5, 5, 9]])}], "x1 < x2"),
        ([torch.rand(3, 64, 64)], [{**GOOD, "labels": torch.zeros(1).long()}], r"expected 1\.\.5"),
        ([torch.rand(3, 64, 64)], [{**GOOD, "labels": torch.tensor([6])}], "the label 6"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(images, targets, message):
    with pytest.raises(InputError, match=message):
        small()(images, targets)


def test_unknown_operators_are_refused():
    with pytest.raises(InputError, match="choose one of: written, torchvision, quick"):
        small(operators="fast")


def test_weights_with_a_frozen_batch_normalisation_go_in_as_well():
    model = ours.maskrcnn_resnet50_fpn(CLASSES, settings=SMALL)
    frozen = {
        name: value + 1
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    model.load_state_dict(ours.from_peer(frozen), strict=True)
    for name, value in model.state_dict().items():
        assert value.equal(frozen.get(name, torch.zeros(()).long())), name


def test_how_many_are_found_is_the_settings_unless_it_is_said():
    few = replace(ours.SMALL, regions=replace(ours.SMALL.regions, most=7))
    assert small(settings=few).most == 7
    crowd = small(settings=few, most=400)
    assert crowd.most == 400
    assert crowd.settings.proposals.after_nms == (100, 800)
