"""`python -m tests.benchmarks`: a row each for us, the peer, and how many times as fast we are."""

import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from pycocotools import mask as peer
from scipy import ndimage
from torchmetrics.classification import MulticlassConfusionMatrix

from segedu.config import TrainConfig
from segedu.data import rle
from segedu.data.sample import IGNORE, Sample, collate
from segedu.data.scenes import CLASSES, Scenes
from segedu.loop import shuffled
from segedu.losses import cross_entropy_loss
from segedu.metrics.confusion import ConfusionMatrix
from segedu.models.unet import UNet
from segedu.runs import warmup_cosine
from segedu.train import fit
from tests.benchmarks.instances import instance_ap_against_pycocotools
from tests.benchmarks.losses import losses_against_smp
from tests.benchmarks.smp_peer import SmpUnet
from tests.benchmarks.timing import report
from tests.benchmarks.training import unet_on_camvid
from tests.benchmarks.twins import models_against_their_twins

WIDTHS = (24, 48, 96, 192)


def main() -> None:
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print(f"{'':<62} {'ours':>12} {'peer':>12} {'ratio':>7}")
    unet_against_smp()
    models_against_their_twins()
    fit_against_a_bare_loop()
    unet_on_camvid()
    confusion_against_torchmetrics()
    rle_against_pycocotools()
    losses_against_smp()
    instance_ap_against_pycocotools()
    scenes_per_second()


def unet_against_smp() -> None:
    """One training step, in float32 and in bfloat16."""
    ours, peer = UNet(6, widths=WIDTHS), SmpUnet(6, WIDTHS)
    assert count(ours) == count(peer)
    for kind, amp in (("float32", False), ("bfloat16", True)):
        report(
            f"U-Net step, {count(ours) / 1e6:.2f} M weights, {kind} / smp",
            training_step(ours, amp=amp),
            training_step(peer, amp=amp),
            target=0.97,  # not slower, to within the noise of a busy machine
            rounds=15,
        )


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def training_step(model: torch.nn.Module, *, amp: bool) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters())
    images, masks = torch.rand(8, 3, 96, 96), torch.randint(6, (8, 96, 96))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            logits = model(images)
        loss = cross_entropy_loss(logits.float(), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def fit_against_a_bare_loop() -> None:
    """The same epochs, batches and steps, with and without what `fit` adds."""
    samples = [Scenes(192)[i] for i in range(192)]
    train, val = (torch.utils.data.Subset(samples, range(*r)) for r in ((0, 160), (160, 192)))
    config = TrainConfig(epochs=2, batch_size=16, device="cpu")

    def fitted() -> None:
        model = UNet(len(CLASSES), widths=(16, 32, 64))
        for _ in fit(model, train, val, num_classes=len(CLASSES), config=config):
            pass

    report(
        "fit, 2 epochs / a bare loop", fitted, lambda: bare_loop(train, val, config), target=0.97
    )


def bare_loop(
    train: torch.utils.data.Dataset[Sample],
    val: torch.utils.data.Dataset[Sample],
    config: TrainConfig,
) -> None:
    """What one would write by hand: no checks, no best weights, no records."""
    model = UNet(len(CLASSES), widths=(16, 32, 64)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, 20, config.warmup)
    )
    for epoch in range(config.epochs):
        model.train()
        for batch in shuffled(train, None, config, torch.device("cpu"), epoch=epoch):
            images = batch["image"].as_subclass(torch.Tensor).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(images)
            loss = cross_entropy_loss(logits.float(), batch["mask"].as_subclass(torch.Tensor))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for first in range(0, len(val), config.batch_size):
                samples = [val[i] for i in range(first, first + config.batch_size)]
                images = collate(samples)["image"].as_subclass(torch.Tensor)
                model(images.to(memory_format=torch.channels_last)).argmax(1)


def confusion_against_torchmetrics() -> None:
    """8 x 512 x 512 pixels, 21 classes, 5 % void, one thread; ours checks its input, always."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    target, prediction = torch.randint(21, (2, 8, 512, 512))
    target[torch.rand(target.shape) < 0.05] = IGNORE
    ours = ConfusionMatrix(21)
    for what, options, least in (
        ("default", {}, 5.0),
        ("validate_args=False", {"validate_args": False}, 2.0),
    ):
        peer = MulticlassConfusionMatrix(21, ignore_index=IGNORE, **options)
        report(
            f"ConfusionMatrix.update / torchmetrics, {what}",
            lambda: ours.update(prediction, target),
            lambda: peer.update(prediction, target),  # noqa: B023 - called within the loop
            target=least,
        )
    torch.set_num_threads(threads)


def rle_against_pycocotools() -> None:
    """480 rows, to string and back, one thread: a scene's objects, soft blobs, and noise."""
    generator = np.random.default_rng(0)
    blobs = ndimage.gaussian_filter(generator.normal(size=(480, 640)), 12) > 0
    kinds = {
        "objects": list(Scenes(2, size=480)[0]["masks"].numpy()),
        "blobs": [blobs] * 4,
        "noise": [generator.random((480, 640)) < 0.5] * 4,
    }
    for kind, masks in kinds.items():
        stored = [np.asfortranarray(mask, dtype=np.uint8) for mask in masks]
        encoded = [peer.encode(mask) for mask in stored]
        report(
            f"RLE encode, {kind} / pycocotools",
            lambda: [rle.to_string(rle.encode(mask)) for mask in stored],  # noqa: B023 - within the loop
            lambda: [peer.encode(mask) for mask in stored],  # noqa: B023
            target=0.5,
            rounds=25,
        )
        report(
            f"RLE decode, {kind} / pycocotools",
            lambda: [rle.decode(rle.from_string(x["counts"]), *x["size"]) for x in encoded],  # noqa: B023
            lambda: [peer.decode(x) for x in encoded],  # noqa: B023
            target=0.5,
            rounds=25,
        )


def scenes_per_second() -> None:
    """96 x 96, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    scenes = Scenes(300)
    start = time.perf_counter()
    for i in range(len(scenes)):
        scenes[i]
    rate = len(scenes) / (time.perf_counter() - start)
    verdict = "reached" if rate >= 300 else "MISSED"
    print(f"scenes of 96 x 96: {rate:.0f} a second on one core, target 300 {verdict}")
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
