"""How quickly pictures come: reading and decoding them, alone and with worker processes."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, Dataset

from segedu.data.sample import Sample, collate


def pictures_per_second(
    data: Dataset[Sample], *, batch_size: int, workers: int = 0, pin_memory: bool = False
) -> float:
    """Pictures a second that a loader gives, from its first batch to its last.

    The time until the first batch is left out: workers take seconds to start, once an epoch.

    Args:
        data: More than one batch of samples of one size.
        batch_size: Pictures in a batch.
        workers: Processes; 0 for none.
        pin_memory: Whether batches are put where a GPU can fetch them by itself.
    """
    loader = DataLoader(
        data,
        batch_size,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin_memory,
    )
    batches = iter(loader)
    next(batches)
    start = time.perf_counter()
    seen = sum(len(batch["image"]) for batch in batches)
    return seen / (time.perf_counter() - start)


def split_wait(batches: Iterator[Any], step: Callable[[Any], object]) -> Mapping[str, float]:
    """Seconds of an epoch that went into waiting for batches, and into steps, by these names."""
    taken = {"waiting": 0.0, "steps": 0.0}
    last = time.perf_counter()
    for batch in batches:
        there = time.perf_counter()
        step(batch)
        done = time.perf_counter()
        taken["waiting"] += there - last
        taken["steps"] += done - there
        last = done
    return taken
