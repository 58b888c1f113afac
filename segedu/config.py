"""The settings of a training run, and so the flags of `segedu train`."""

from dataclasses import asdict, dataclass
from typing import Any

from segedu.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All that decides a run besides its model and its data.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Images in one step, of all processes together.
        learning_rate: AdamW's greatest step size, reached after the warm-up.
        backbone_rate: Share of it for the model's backbone: a pretrained one has less to learn; 0
            keeps it as it is, but for the running means of its batch normalisation.
        weight_decay: AdamW's; the share by which weights shrink in a step, per unit learning rate.
        warmup: Share of all steps in which the learning rate rises from 0; after them it falls to 0
            along a half cosine.
        patience: Epochs without a better validation score after which training stops.
        seed: Decides the order of the training data, its augmentation, and the model's own dice.
        device: Where to compute: "auto", "cpu", "cuda" or "mps".
        amp: Compute in 16 bits where that is safe and quick.
        channels_last: Keep a pixel's channels together in memory, as fast convolutions want them.
        workers: Processes that load data; 0 loads it in this one.
        accumulate: Parts that a batch is learnt in, one after the other, before the one step: takes
            the memory of one part. Batch normalisation sees each part by itself.
        recompute: Keep fewer activations for the way back, and compute them again: takes less
            memory and more time.
        compile: Let torch.compile write code for the model; its first steps take a minute or more.
    """

    epochs: int = 10
    batch_size: int = 16
    learning_rate: float = 1e-3
    backbone_rate: float = 1.0
    weight_decay: float = 1e-2
    warmup: float = 0.1
    patience: int = 1000
    seed: int = 0
    device: str = "auto"
    amp: bool = True
    channels_last: bool = True
    workers: int = 0
    accumulate: int = 1
    recompute: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "accumulate"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.backbone_rate < 0:
            raise InputError(f"backbone_rate is {self.backbone_rate}; expected 0 or more")
        if self.recompute and self.compile:
            raise InputError(
                "recompute and compile are both on; expected one: compiled code recomputes too"
            )
        if not 0 <= self.warmup <= 1:
            raise InputError(f"warmup is {self.warmup}; expected a share of the steps, in [0, 1]")

    def record(self) -> dict[str, Any]:
        """The settings that change a run's result, as a checkpoint keeps them."""
        return {k: v for k, v in asdict(self).items() if k not in ("device", "workers")}
