"""Keep of a run's checkpoint what is needed to predict: small enough for the repository.

    python tools/keep_best.py RUN.pt OUT.pt "COMMAND THAT MADE IT"

The optimiser's state goes, the best weights stay, in 16 bits.
"""

import sys
from pathlib import Path

import torch

from segedu.checkpoints import load_checkpoint, save_checkpoint


def main(run: Path, out: Path, command: str) -> None:
    """Write `out` from `run`, with the command noted in it."""
    state = load_checkpoint(run)
    best = {
        name: value.half() if value.dtype == torch.float32 else value
        for name, value in state["best"].items()
    }
    about = {**state["about"], "made_by": command}
    kept = {"about": about, "best": best, "config": state["config"], "history": state["history"]}
    save_checkpoint(out, kept)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
