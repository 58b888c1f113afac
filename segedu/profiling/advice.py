"""What limits a machine that trains, in plain sentences, and which settings to use there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segedu.profiling.flops import LayerCost
from segedu.profiling.levers import Outcome
from segedu.profiling.roofline import Ceilings

ENOUGH = 1.1
"""How many times as quick a setting must be to be recommended: less is noise."""


@dataclass(frozen=True)
class Findings:
    """What `segedu bench` measured.

    Attributes:
        batch: Pictures in a step.
        flops: Of one step.
        costs: Of the model's layers, in one forward pass.
        ceilings: Of the device.
        outcomes: Of the levers, the plain one first.
        rates: Pictures a second that the loader gives, by number of workers.
        memory: Bytes of memory that the device has; 0 if unknown.
        on_cpu: Whether steps and loader share the same cores.
    """

    batch: int
    flops: int
    costs: Sequence[LayerCost]
    ceilings: Ceilings
    outcomes: Sequence[Outcome]
    rates: Mapping[int, float]
    memory: int
    on_cpu: bool

    @property
    def best(self) -> Outcome:
        """The quickest lever, or the plain one if none is clearly quicker."""
        plain, quickest = self.outcomes[0], min(self.outcomes, key=lambda o: o.seconds)
        return quickest if plain.seconds / quickest.seconds >= ENOUGH else plain

    @property
    def workers(self) -> int:
        """The least number of workers with which the loader is about as quick as it gets."""
        most = max(self.rates.values())
        return min(n for n, rate in self.rates.items() if rate * ENOUGH >= most)

    @property
    def waiting(self) -> float:
        """Share of the time, in [0, 1], in which the quickest step would wait for pictures.

        Without workers, loading and learning take turns, as they do when both need the CPU's
        cores; with workers a GPU waits for what the loader lacks.
        """
        load, learn = 1 / self.rates[self.workers], self.best.seconds / self.batch
        if self.workers == 0 or self.on_cpu:
            return load / (load + learn)
        return max(0.0, 1 - learn / load)

    @property
    def kind(self) -> str:
        """The number format of the quickest step's products."""
        kinds = list(self.ceilings.flops)
        return kinds[-1] if self.best.lever.settings.get("amp") else kinds[0]

    @property
    def width(self) -> float:
        """Bytes of a number of the quickest step's maps, as a share of float32's."""
        return 0.5 if self.best.lever.settings.get("amp") else 1.0

    @property
    def reached(self) -> float:
        """The quickest step's FLOPs a second, as a share of the ceiling in its format."""
        return self.flops / self.best.seconds / self.ceilings.flops[self.kind]

    @property
    def bandwidth_share(self) -> float:
        """Share, in [0, 1], of the least time of a forward pass for which memory is the limit."""
        least = [
            (
                cost.flops / self.ceilings.flops[self.kind],
                cost.moved * self.width / self.ceilings.bandwidth,
            )
            for cost in self.costs
        ]
        bound = sum(memory for arithmetic, memory in least if memory > arithmetic)
        return bound / sum(max(pair) for pair in least)


def limits(found: Findings) -> list[str]:
    """What limits this machine, a sentence each, the most important first."""
    gain = found.outcomes[0].seconds / found.best.seconds
    pictures = found.batch / found.best.seconds
    rate = found.rates[found.workers]
    waiting = f"{found.waiting:.0%} of the time goes into waiting for pictures"
    bandwidth = f"memory bandwidth sets {found.bandwidth_share:.0%} of a forward pass's least time"
    sentences = [
        f"{waiting}: steps could take {pictures:.0f} a second, the loader gives {rate:.0f}.",
        f"The quickest step reaches {found.reached:.0%} of the arithmetic ceiling in {found.kind}.",
        f"By the roofline, {bandwidth}, arithmetic the rest.",
    ]
    if found.memory:
        most = int(found.batch * 0.8 * found.memory / found.best.peak)
        sentences.append(
            f"A step takes {found.best.peak / 1e6:.0f} MB of {found.memory / 1e9:.0f} GB: about "
            f"{most} pictures would fit into a batch."
        )
    sentences.append(
        f"The best setting is {gain:.1f} times as fast as plain float32: {found.best.lever.name}."
        if found.best is not found.outcomes[0]
        else "No setting is clearly faster than plain float32 here."
    )
    return [main_limit(found), *sentences]


def main_limit(found: Findings) -> str:
    """The one thing to mend first."""
    if found.waiting > 0.3:
        return "What limits you is the loader."
    if found.memory and found.best.peak > 0.6 * found.memory:
        return "What limits you is the amount of memory."
    if found.bandwidth_share > 0.5:
        return "What limits you is memory bandwidth."
    return "What limits you is arithmetic."


def command(found: Findings, data: str, model: str) -> str:
    """The `segedu train` that these findings recommend."""
    settings = found.best.lever.settings
    words = [
        f"segedu train --data {data} --model {model} --batch-size {found.batch}",
        "--amp" if settings.get("amp") else "--no-amp",
        "--channels-last" if settings.get("channels_last") else "--no-channels-last",
        f"--workers {found.workers}",
    ]
    if settings.get("compile"):
        words.append("--compile")
    if found.memory and found.best.peak > 0.6 * found.memory:
        words.append("--accumulate 4")
    return " ".join(words)
