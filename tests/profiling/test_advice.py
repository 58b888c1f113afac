from dataclasses import replace

import pytest

from segedu.profiling.advice import Findings, command, limits, main_limit
from segedu.profiling.flops import LayerCost
from segedu.profiling.levers import Lever, Outcome
from segedu.profiling.roofline import Ceilings

PLAIN = Outcome(Lever("plain float32", {}), "cpu", 0.2, 0.3, 10**8, 0.5)
QUICK = Outcome(
    Lever("both", {"amp": True, "channels_last": True}), "cpu", 0.1, 0.3, 5 * 10**7, 0.5
)
FOUND = Findings(
    batch=8,
    flops=20 * 10**9,
    costs=[LayerCost("a", "Conv2d", 4000, 100), LayerCost("b", "ReLU", 100, 800)],
    ceilings=Ceilings({"float32": 200e9, "bfloat16": 400e9}, 20e9),
    outcomes=[PLAIN, QUICK],
    rates={0: 800.0, 2: 820.0},
    memory=10**9,
    on_cpu=True,
)


def test_the_quickest_setting_is_the_best_if_it_is_clearly_quicker():
    assert FOUND.best is QUICK
    assert replace(FOUND, outcomes=[PLAIN, replace(QUICK, seconds=0.19)]).best is PLAIN


def test_no_more_workers_than_help():
    assert FOUND.workers == 0
    assert replace(FOUND, rates={0: 100.0, 2: 200.0, 4: 205.0}).workers == 2


def test_on_a_cpu_loading_and_learning_take_turns():
    # 8 pictures load in 0.01 s and are learnt in 0.1 s
    assert FOUND.waiting == pytest.approx(0.01 / 0.11)
    assert replace(FOUND, rates={2: 80.0}).waiting == pytest.approx(0.5)


def test_a_gpu_waits_for_what_workers_lack():
    gpu = replace(FOUND, on_cpu=False)
    assert gpu.waiting == pytest.approx(0.01 / 0.11)  # without workers it waits its turn
    assert replace(gpu, rates={2: 820.0}).waiting == 0
    assert replace(gpu, rates={2: 20.0}).waiting == pytest.approx(0.75)


def test_the_ceiling_is_that_of_the_quickest_steps_format():
    assert FOUND.kind == "bfloat16"
    assert FOUND.reached == pytest.approx(20e9 / 0.1 / 400e9)
    plain = replace(FOUND, outcomes=[PLAIN])
    assert plain.kind == "float32"
    assert plain.reached == pytest.approx(20e9 / 0.2 / 200e9)


def test_bandwidths_share_of_the_least_time_by_hand():
    # float32: a needs max(20, 5) ns of arithmetic, b max(0.5, 40) ns of memory
    assert replace(FOUND, outcomes=[PLAIN]).bandwidth_share == pytest.approx(40 / 60)
    # bfloat16: a max(10, 2.5), b max(0.25, 20), in half the bytes
    assert FOUND.bandwidth_share == pytest.approx(20 / 30)


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({}, "memory bandwidth"),
        ({"rates": {0: 40.0}}, "the loader"),
        ({"memory": 70_000_000}, "the amount of memory"),
        ({"memory": 0, "costs": FOUND.costs[:1]}, "arithmetic"),
    ],
)
def test_the_main_limit_is_named_first(change, limit):
    found = replace(FOUND, **change)
    assert main_limit(found) == f"What limits you is {limit}."
    assert limits(found)[0] == main_limit(found)


def test_the_sentences_say_the_numbers():
    waiting, reached, bandwidth, memory, gain = limits(FOUND)[1:]
    assert waiting.startswith("9% of the time goes into waiting for pictures: ")
    assert waiting.endswith("steps could take 80 a second, the loader gives 800.")
    assert reached == "The quickest step reaches 50% of the arithmetic ceiling in bfloat16."
    assert "memory bandwidth sets 67% of a forward pass's least time" in bandwidth
    assert memory == "A step takes 50 MB of 1 GB: about 128 pictures would fit into a batch."
    assert gain == "The best setting is 2.0 times as fast as plain float32: both."
    assert limits(replace(FOUND, memory=0, outcomes=[PLAIN]))[-1] == (
        "No setting is clearly faster than plain float32 here."
    )


def test_the_command_has_what_was_found():
    assert command(FOUND, "camvid", "unet") == (
        "segedu train --data camvid --model unet --batch-size 8 --amp --channels-last --workers 0"
    )
    compiled = replace(QUICK, lever=Lever("c", {"compile": True}))
    tight = replace(FOUND, memory=60_000_000, rates={0: 1.0, 2: 2.0}, outcomes=[PLAIN, compiled])
    assert command(tight, "scenes", "unet").endswith(
        "--no-amp --no-channels-last --workers 2 --compile --accumulate 4"
    )
