"""The checkpoint that comes with segedu is as good as it says, by a command that still holds."""

import shlex

import pytest

from segedu.checkpoints import load_checkpoint
from segedu.config import TrainConfig
from segedu.data import catalog
from segedu.detect import score_objects
from segedu.errors import InputError
from segedu.models.registry import MODELS
from segedu.plans import prepare
from segedu.predict import load_trained, shipped

NAME = "maskrcnn-scenes.pt"


@pytest.fixture(scope="module")
def state():
    return load_checkpoint(shipped(NAME))


def test_it_finds_the_held_out_objects_as_well_as_its_run_did(state):
    val_data = catalog.load("scenes", split="val", size=128)
    config = prepare("scenes", "maskrcnn", {"device": "cpu", "amp": False}).config
    trained = load_trained(shipped(NAME), device="cpu")
    score = score_objects(trained.model, val_data, config=config).summary()["AP"]
    assert score >= 0.5
    assert score == pytest.approx(max(epoch["val_score"] for epoch in state["history"]), abs=0.01)


def test_its_command_would_make_it_again(state):
    words = shlex.split(state["about"]["made_by"])
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert words[:2] == ["segedu", "train"]
    plan = prepare(options["--data"], options["--model"], {"seed": int(options["--seed"])})
    assert plan.config.record() == {**TrainConfig().record(), **state["config"]}  # newer settings
    assert {**plan.about, "made_by": state["about"]["made_by"]} == state["about"]
    assert MODELS[options["--model"]].objects


def test_it_is_small_enough_for_the_repository():
    assert shipped(NAME).stat().st_size <= 4 * 2**20


def test_a_checkpoint_that_does_not_come_with_segedu_is_refused():
    with pytest.raises(InputError, match=r"choose one of: maskrcnn-scenes\.pt"):
        shipped("unet.pt")
