"""A search for good settings that can be stopped at any moment and gone on with exactly.

Chapter 11 uses it.

Source: Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019.
"""

from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.trial import TrialState

from segedu.data.transforms import mixed_seed

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def search(
    objective: Callable[[optuna.Trial], float],
    path: Path,
    *,
    trials: int,
    seed: int = 0,
    random_trials: int = 5,
) -> optuna.Study:
    """Try settings until `trials` of them are finished; returns what was found.

    Each finished trial is kept in an SQLite file at once. When the file exists already, the search
    goes on from it. What a trial tries depends on the seed and on the finished trials alone, so a
    search that was stopped, or killed, tries what an uninterrupted one would have tried; a trial
    that did not come to its end is tried again. One search at a time may use a file.

    Args:
        objective: From a trial, which suggests the settings, to their score: greater is better. It
            reports scores on its way and raises `optuna.TrialPruned` when `trial.should_prune()`:
            when it is below the median of the finished trials at the same step.
        path: The SQLite file.
        trials: How many finished trials the file should hold in the end, pruned ones included.
        seed: Chooses what is tried.
        random_trials: How many trials are drawn blindly, before the scores guide the search; as
            many must be complete before one is pruned.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{path}",
        study_name="segedu",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=random_trials),
    )
    for killed in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(killed.number, state=TrialState.FAIL)  # or the sampler would reckon with it
    while (finished := _finished(study)) < trials:
        study.sampler = optuna.samplers.TPESampler(
            seed=mixed_seed(seed, finished) >> 33,  # NumPy takes 32 bits
            n_startup_trials=random_trials,
        )
        study.optimize(objective, n_trials=1)
    return study


def _finished(study: optuna.Study) -> int:
    """How many trials came to their end, or were pruned."""
    return len(study.get_trials(deepcopy=False, states=FINISHED))
