"""Two things timed in turn, so that a change in the machine's speed hits both."""

import statistics
import time
from collections.abc import Callable


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(
    ours: Callable[[], object], peer: Callable[[], object], *, rounds: int = 7
) -> tuple[float, float, float]:
    """Median seconds of both, and the median of the ratios peer / ours of each round."""
    ours(), peer()  # warm up
    pairs = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    return mine, theirs, statistics.median(b / a for a, b in pairs)


def report(
    what: str, ours: Callable[[], object], peer: Callable[[], object], target: float, **options: int
) -> None:
    """Print one row: both times, how many times as fast as the peer we are, and the target."""
    mine, theirs, ratio = compare(ours, peer, **options)
    verdict = "reached" if ratio >= target else "MISSED"
    times = f"{mine * 1e3:9.1f} ms {theirs * 1e3:9.1f} ms {ratio:6.2f}x"
    print(f"{what:<62} {times}  target {target:g}x {verdict}", flush=True)
