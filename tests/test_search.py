import math
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from segedu.search import search


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def hill(trial):
    """Best at 0.03 and 2; reports two steps, each closer to the score."""
    rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
    levels = trial.suggest_int("levels", 1, 4)
    score = -abs(math.log10(rate / 0.03)) - abs(levels - 2)
    for step in range(2):
        trial.report(score * (step + 1) / 2, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return score


def tried(study):
    """What the finished trials tried and came to."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return [(t.params, t.state, t.values) for t in study.get_trials(states=states)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return search(hill, tmp_path_factory.mktemp("whole") / "a.db", trials=9, random_trials=4)


def test_a_search_finds_the_better_settings(whole):
    assert whole.best_params["levels"] == 2
    assert 0.01 < whole.best_params["rate"] < 0.1
    assert whole.best_value == max(hill_value(t.params) for t in whole.trials)


def hill_value(params):
    return -abs(math.log10(params["rate"] / 0.03)) - abs(params["levels"] - 2)


def test_hopeless_trials_are_pruned_but_none_of_the_first(whole):
    states = [trial.state for trial in whole.trials]
    assert states[:4] == [TrialState.COMPLETE] * 4
    assert TrialState.PRUNED in states
    assert states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED) == 9


def test_a_stopped_search_goes_on_as_an_uninterrupted_one(whole, tmp_path):
    search(hill, tmp_path / "b.db", trials=3, random_trials=4)
    search(hill, tmp_path / "b.db", trials=6, random_trials=4)
    assert tried(search(hill, tmp_path / "b.db", trials=9, random_trials=4)) == tried(whole)


def test_a_trial_that_fails_is_tried_again(whole, tmp_path):
    calls = []

    def failing(trial):
        calls.append(trial.number)
        score = hill(trial)
        if len(calls) == 3:
            raise OSError("no space left")
        return score

    with pytest.raises(OSError, match="no space"):
        search(failing, tmp_path / "c.db", trials=6, random_trials=4)
    assert tried(search(failing, tmp_path / "c.db", trials=6, random_trials=4)) == tried(whole)[:6]


def test_a_search_that_is_killed_goes_on_as_an_uninterrupted_one(whole, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, tmp_path / "d.db"], check=False
    )
    assert done.returncode == 7
    study = search(hill, tmp_path / "d.db", trials=8, random_trials=4)
    assert tried(study) == tried(whole)[:8]


def test_a_finished_search_tries_nothing_more(tmp_path):
    search(hill, tmp_path / "e.db", trials=2)
    study = search(fail, tmp_path / "e.db", trials=2)
    assert len(study.trials) == 2


def fail(trial):
    raise AssertionError


def test_another_seed_tries_other_settings(tmp_path):
    first, again, other = (
        tried(search(hill, tmp_path / f"{i}.db", trials=2, seed=seed))
        for i, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert first[0] != other[0]
    assert first[0] != first[1]


def test_blind_trials_are_as_many_as_asked_for(tmp_path):
    """With all trials blind, what is tried does not depend on the scores."""
    up, down = (
        tried(
            search(
                lambda trial, sign=sign: sign * trial.suggest_float("x", 0, 1),
                tmp_path / "folder" / f"{sign}.db",
                trials=6,
                random_trials=guided,
            )
        )
        for sign, guided in ((1, 6), (-1, 6))
    )
    assert [params for params, *_ in up] == [params for params, *_ in down]


if __name__ == "__main__":  # the victim of the test that kills
    import os

    def deadly(trial):
        if trial.number == 4:
            trial.suggest_float("rate", 1e-4, 1.0, log=True)
            os._exit(7)
        return hill(trial)

    search(deadly, Path(sys.argv[1]), trials=8, random_trials=4)
