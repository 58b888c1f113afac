"""Two processes against one: what they learn, what they count, and what they keep."""

import math
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import RandomSampler, SequentialSampler, Subset

from segedu import distributed
from segedu.checkpoints import load_checkpoint
from segedu.config import TrainConfig
from segedu.data.sample import IGNORE
from segedu.data.scenes import CLASSES, Scenes
from segedu.data.transforms import random_crop
from segedu.detect import fit_objects, score_objects
from segedu.errors import InputError
from segedu.loop import in_parts
from segedu.losses import cross_entropy_loss, lovasz_loss
from segedu.models.mask_rcnn.model import maskrcnn_trunk
from segedu.models.unet import UNet
from segedu.processes import run_processes
from segedu.train import evaluate, fit

CONFIG = TrainConfig(epochs=5, batch_size=6, learning_rate=3e-3, device="cpu", amp=False)
TRAIN, VAL = Scenes(19, size=24, seed=1), Scenes(7, size=24, seed=2)  # 4 batches, the last of 1


def plain():
    """A network without batch normalisation."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, len(CLASSES), 1))


def unet():
    return UNet(len(CLASSES), widths=(4, 8))


def learn(network, config=CONFIG, train=TRAIN, **options):
    """Weights and epochs after training; the first weights hang on the process's number."""
    torch.manual_seed(distributed.rank())
    model = network()
    epochs = list(fit(model, train, VAL, num_classes=len(CLASSES), config=config, **options))
    return {k: v.detach().clone() for k, v in model.state_dict().items()}, epochs


def apart(some, others):
    """The largest difference between weights of the same names."""
    assert list(some) == list(others)
    return max((some[k].double() - others[k].double()).abs().max().item() for k in some)


CASES = {
    "no batch normalisation": (plain, CONFIG, {}, 1e-5),
    "synchronised batch normalisation": (unet, CONFIG, {}, 1e-4),
    "a loss that is no mean over pixels": (plain, CONFIG, {"loss": lovasz_loss}, 1e-5),
    "augmented": (plain, CONFIG, {"augment": random_crop(16, 16, colour=0.2)}, 1e-5),
    "in parts": (plain, replace(CONFIG, accumulate=2), {}, 1e-5),
    "recomputed": (unet, replace(CONFIG, recompute=True), {}, 1e-4),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", [2, 3])
def test_processes_learn_what_one_learns_with_the_same_batch(name, count):
    network, config, options, most = CASES[name]
    alone, epochs = learn(network, config, **options)
    together = run_processes(learn, count, network, config, **options)
    for weights, same in together:
        assert apart(weights, alone) <= most
        assert apart(weights, together[0][0]) == 0
        assert [epoch.train_loss for epoch in same] == pytest.approx(
            [epoch.train_loss for epoch in epochs], rel=1e-4
        )
        assert same == together[0][1]
