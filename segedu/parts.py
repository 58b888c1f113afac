"""Which samples of a batch are whose, where several processes train; chapter 21 derives it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import BatchSampler, Sampler

from segedu.distributed import rank, size


def own_part(batch: list[int]) -> list[int]:
    """This process's part of a batch; parts differ in length by at most one, and may be empty."""
    start, stop = (len(batch) * (rank() + i) // size() for i in range(2))
    return batch[start:stop]


class Parts(Sampler[list[int]]):
    """This process's part of each batch, for a `DataLoader`.

    All processes go through the same batches in step. One whose part is empty has the batch's first
    sample instead, to keep the others company with.

    Args:
        order: Indices of samples, in the same order in all processes.
        batch_size: Of all processes together.
    """

    def __init__(self, order: Sampler[int], batch_size: int) -> None:
        self.batches = BatchSampler(order, batch_size, drop_last=False)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield own_part(batch) or batch[:1]

    def __len__(self) -> int:
        return len(self.batches)

    def lengths(self) -> Iterator[int]:
        """The number of samples in each batch, in all processes together."""
        samples = len(self.batches.sampler)  # type: ignore[arg-type]
        for start in range(0, samples, self.batches.batch_size):
            yield min(self.batches.batch_size, samples - start)


@dataclass(frozen=True)
class Portion:
    """What a process has of a batch.

    Attributes:
        batch: As the loader gives it.
        own: How many images of it count; with none there is one all the same, to keep company.
        most: The most that a process has of this batch.
        images: The number in all processes together.
    """

    batch: dict[str, Any]
    own: int
    most: int
    images: int


def in_step(batches: Iterable[dict[str, Any]]) -> Iterator[Portion]:
    """This process's portion of each batch: of a `DataLoader` with `Parts`, or all of each."""
    sampler = getattr(batches, "batch_sampler", None)
    if not isinstance(sampler, Parts):
        for batch in batches:
            images = len(batch["image"])
            yield Portion(batch, images, images, images)
        return
    for batch, images in zip(batches, sampler.lengths(), strict=True):
        own = len(own_part([0] * images))
        yield Portion(batch, own, -(-images // size()), images)


def own_batches(samples: int, batch_size: int) -> list[list[int]]:
    """The indices of this process's samples, in order, by batch; each sample is in one process."""
    batches = (range(i, min(i + batch_size, samples)) for i in range(0, samples, batch_size))
    parts = (own_part(list(batch)) for batch in batches)
    return [part for part in parts if part]
