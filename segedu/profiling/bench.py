"""`segedu bench`: this machine's ceilings, what each setting gains, and what limits it."""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.data import Dataset, Subset

from segedu.config import TrainConfig
from segedu.data import catalog
from segedu.data.sample import Sample
from segedu.data.transforms import Augmented, random_crop
from segedu.device import pick_device
from segedu.errors import InputError
from segedu.losses import cross_entropy_loss
from segedu.models.registry import MODELS, build
from segedu.models.speed import what_compiling_lacks
from segedu.profiling.advice import Findings, command, limits
from segedu.profiling.feed import pictures_per_second
from segedu.profiling.flops import layer_costs, step_flops
from segedu.profiling.levers import Outcome, Trial, levers, table, try_lever
from segedu.profiling.roofline import Ceilings, measure_ceilings


@dataclass(frozen=True)
class Bench:
    """What to measure.

    Attributes:
        device: "auto", "cpu", "cuda" or "mps".
        model: A name of the registry that labels pixels.
        data: A set of the catalogue.
        size: Height and width of the pictures, in pixels.
        batch: Pictures in a step.
        steps: Training steps with each setting; 3 or more.
        compiled: Whether to try torch.compile as well.

    Raises:
        InputError: If the model finds objects, or a number is too small.
    """

    device: str = "auto"
    model: str = "unet"
    data: str = "scenes"
    size: int = 128
    batch: int = 8
    steps: int = 5
    compiled: bool = False

    def __post_init__(self) -> None:
        for name, least in (("size", 16), ("batch", 2), ("steps", 3)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected {least} or more")
        if self.model in MODELS and MODELS[self.model].objects:
            raise InputError(f"model {self.model!r} finds objects; choose one that labels pixels")

    def run(self) -> Iterator[str]:
        """Measure, and yield what was found line by line, as it is found."""
        device = pick_device(self.device)
        yield describe_machine(device)
        ceilings = measure_ceilings(device)
        yield from _of_ceilings(ceilings)
        data = self.pictures()
        classes = len(catalog.load(self.data).classes)
        yield f"\n{self.model}, {self.batch} pictures of {self.size} x {self.size}, training steps"
        outcomes: list[Outcome] = []
        for lever in levers(device, parts=min(4, self.batch), compiled=self.compiled):
            outcomes.append(try_lever(lever, self.trial(data, classes)))
            rows = table([outcomes[0], outcomes[-1]]).splitlines()
            yield "\n".join(rows[-1:] if outcomes[1:] else rows)
        yield from _of_compiling(device, self.compiled)
        rates = {}
        for workers in sorted({0, min(4, os.cpu_count() or 1)}):
            rates[workers] = pictures_per_second(data, batch_size=self.batch, workers=workers)
            yield f"loader, {workers} workers: {rates[workers]:.0f} pictures a second"
        found = self.findings(device, ceilings, outcomes, rates, classes)
        yield "\n" + "\n".join(limits(found))
        yield f"\nUse: {command(found, self.data, self.model)}"

    def trial(self, data: Dataset[Sample], classes: int) -> Trial:
        """What the levers are tried on: one batch, again and again."""
        first = [data[i] for i in range(self.batch)]
        config = TrainConfig(batch_size=self.batch, device=self.device)
        return Trial(
            model=partial(build, self.model, classes),
            train_data=Subset(first, range(self.batch)),  # type: ignore[arg-type]
            val_data=None,
            num_classes=classes,
            config=config,
            steps=self.steps,
        )

    def pictures(self) -> Dataset[Sample]:
        """Pictures of the set, cut to the size; enough to time a loader.

        Raises:
            InputError: If the set has fewer than a batch.
        """
        if self.data == "scenes":
            whole: Dataset[Sample] = catalog.load(self.data, size=self.size)
        else:
            crop = random_crop(self.size, self.size, upright=True)
            whole = Augmented(catalog.load(self.data), crop, seed=0, epoch=0)
        there, wanted = len(whole), self.batch * max(3, 96 // self.batch)  # type: ignore[arg-type]
        if there < self.batch * 2:
            raise InputError(f"{self.data}: has {there} pictures; expected two batches or more")
        return Subset(whole, range(min(there, wanted)))

    def findings(
        self,
        device: torch.device,
        ceilings: Ceilings,
        outcomes: list[Outcome],
        rates: dict[int, float],
        classes: int,
    ) -> Findings:
        """All that was measured, with what the model costs."""
        network = build(self.model, classes).to("meta").train()
        images = torch.empty(self.batch, 3, self.size, self.size, device="meta")
        masks = torch.empty(self.batch, self.size, self.size, dtype=torch.long, device="meta")

        def step() -> None:
            cross_entropy_loss(network(images), masks).backward()  # type: ignore[no-untyped-call]

        return Findings(
            batch=self.batch,
            flops=step_flops(step),
            costs=layer_costs(network, images),
            ceilings=ceilings,
            outcomes=outcomes,
            rates=rates,
            memory=memory_of(device),
            on_cpu=device.type == "cpu",
        )


def describe_machine(device: torch.device) -> str:
    """The device, and the version of torch, in one line."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    return f"{device.type}: {name}; torch {torch.__version__}"


def memory_of(device: torch.device) -> int:
    """Bytes of memory that the device has; 0 if it does not say."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _of_ceilings(ceilings: Ceilings) -> Iterator[str]:
    for kind, flops in ceilings.flops.items():
        yield f"matrix product, {kind}: {flops / 1e9:.0f} GFLOP/s"
    yield f"copy in memory: {ceilings.bandwidth / 1e9:.1f} GB/s"


def _of_compiling(device: torch.device, wanted: bool) -> Iterator[str]:  # noqa: FBT001 - an option
    """Why torch.compile is not in the table, if it is not."""
    lacking = what_compiling_lacks(device)
    if lacking:
        yield f"torch.compile is left out: {lacking}"
    elif not wanted:
        yield "torch.compile is left out: it takes a minute or more; --compile tries it"
