"""Each loss against segmentation-models-pytorch's, forward and backward."""

from collections.abc import Callable

import segmentation_models_pytorch.losses as smp
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu import losses
from segedu.data.sample import IGNORE
from tests.benchmarks.timing import report

CLASSES = 21
PEERS = {
    "cross_entropy_loss": smp.SoftCrossEntropyLoss(smooth_factor=0, ignore_index=IGNORE),
    "binary_cross_entropy_loss": smp.SoftBCEWithLogitsLoss(ignore_index=IGNORE),
    "focal_loss": smp.FocalLoss("multiclass", ignore_index=IGNORE),
    "dice_loss": smp.DiceLoss("multiclass", ignore_index=IGNORE),
    "jaccard_loss": smp.JaccardLoss("multiclass", ignore_index=IGNORE),
    "tversky_loss": smp.TverskyLoss("multiclass", ignore_index=IGNORE, alpha=0.3, beta=0.7),
    "lovasz_loss": smp.LovaszLoss("multiclass", ignore_index=IGNORE),
}


def losses_against_smp() -> None:
    """8 x 21 x 256 x 256, 5 % void, one thread; the peer's binary one is given its one-hot target.

    The library has no boundary loss. Its multi-class focal loss has a sigmoid for each class.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logits = torch.randn(8, CLASSES, 256, 256, requires_grad=True)
    target = torch.randint(CLASSES, (8, 256, 256))
    target[torch.rand(target.shape) < 0.05] = IGNORE
    one_hot = F.one_hot(target.where(target != IGNORE, 0), CLASSES).movedim(-1, 1).float()
    one_hot = one_hot.where((target != IGNORE)[:, None], IGNORE).contiguous()
    for name, peer in PEERS.items():
        theirs = one_hot if name == "binary_cross_entropy_loss" else target
        report(
            f"{name}, forward and backward / smp",
            step(getattr(losses, name), logits, target),
            step(peer, logits, theirs),
            target=1.0,
            rounds=7,
        )
    torch.set_num_threads(threads)


def step(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor
) -> Callable[[], None]:
    def forward_and_backward() -> None:
        logits.grad = None
        loss(logits, target).backward()

    return forward_and_backward
