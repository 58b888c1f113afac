import math
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from segedu.errors import InputError
from segedu.exercises import Exercise

ROUND = "that is IoU from Dice, the other way round"
TWICE = "the intersection was counted twice"


def dice_from_iou(j):
    return 2 * j / (1 + j)


def stub(j):
    raise NotImplementedError  # YOUR CODE HERE


@pytest.fixture
def exercise():
    return Exercise(
        solution=dice_from_iou,
        inputs=[(0.0,), (0.5,), (1.0,)],
        misconceptions={ROUND: lambda j: j / (2 - j), TWICE: lambda j: 2 * j},
    )


def asking(solution, *inputs, **options):
    """An exercise whose misconceptions do not matter."""
    mistakes = {"mistake one": lambda *_: "one", "mistake two": lambda *_: "two"}
    return Exercise(solution, inputs, mistakes, **options)


@pytest.mark.parametrize("untouched", [stub, lambda *_: None, lambda *_: ..., None, ...])
def test_an_untouched_stub_is_not_done_yet(exercise, untouched):
    assert exercise.verdict(untouched) == "not done yet"


def test_a_case_left_for_later_is_not_done_yet(exercise):
    assert exercise.verdict(lambda j: j if j == 0 else stub(j)) == "not done yet"


def test_an_answer_that_returns_nothing_in_one_case_is_wrong(exercise):
    told = exercise.verdict(lambda j: dice_from_iou(j) if j < 1 else None)
    assert told == "wrong: answer(1) gives None, expected the number 1"


def test_the_solution_written_another_way_is_right(exercise, capsys):
    exercise.check(lambda j: 2 / (1 / j + 1) if j else 0)
    assert capsys.readouterr().out == "right\n"


def test_a_known_mistake_gets_its_own_sentence(exercise):
    assert exercise.verdict(lambda j: j + j) == f"wrong: {TWICE}"
    assert exercise.verdict(lambda j: 1 / (2 / j - 1) if j else 0) == f"wrong: {ROUND}"


def test_another_mistake_gets_the_smallest_input_that_fails(exercise):
    def squared(j):
        return j**2

    assert exercise.verdict(squared) == "wrong: squared(0.5) gives 0.25, expected 0.6667"


def test_a_mistake_on_some_inputs_only_is_not_taken_for_a_known_one(exercise):
    def answer(j):
        return 2 * j if j < 1 else 3.0

    assert exercise.verdict(answer) == "wrong: answer(0.5) gives 1, expected 0.6667"


def test_an_error_in_the_answer_is_its_verdict(exercise):
    def answer(j):
        return 1 / j

    told = "wrong: answer(0) raises ZeroDivisionError: float division by zero"
    assert exercise.verdict(answer) == told


def test_an_error_without_a_message_is_told_by_its_name(exercise):
    assert exercise.verdict(lambda *_: sys.exit()) == "wrong: answer(0) raises SystemExit"


def test_an_error_that_torch_calls_not_implemented_is_not_an_untouched_stub():
    def answer(x):
        raise NotImplementedError('"softmax" not implemented for Long')

    assert asking(lambda x: x, (1,)).verdict(answer).startswith("wrong: answer(1) raises NotImpl")


def test_an_answer_that_is_no_function_is_told_so(exercise):
    assert exercise.verdict(0.5) == "wrong: the answer is 0.5, expected a function"


def test_an_error_that_the_solution_raises_is_expected_of_the_answer():
    def solution(n):
        if n < 0:
            raise ValueError("negative")
        return math.sqrt(n)

    roots = asking(solution, (4,), (-1,))

    def narrower(n):
        if n < 0:
            raise InputError("another message")
        return n**0.5

    assert roots.verdict(narrower) == "right"
    assert roots.verdict(abs) == "wrong: abs(4) gives 4, expected 2"
    lenient = roots.verdict(lambda *_: 2.0)
    assert lenient == "wrong: answer(-1) gives 2, expected ValueError"
    told = roots.verdict(lambda n: 2.0 if n > 0 else [].pop())
    assert told == "wrong: answer(-1) raises IndexError: pop from empty list, expected ValueError"


def test_the_wrong_shape_or_type_is_told_as_such():
    mean = asking(lambda x: x.mean(0), (torch.ones(2, 3),))
    shape = mean.verdict(lambda x: x.mean(0, keepdim=True))
    assert shape == (
        "wrong: answer(tensor([[1, 1, 1], [1, 1, 1]])) gives shape 1x3, expected shape 3"
    )
    assert mean.verdict(lambda x: x.mean(0).tolist()).endswith(
        "gives the list [1, 1, 1], expected tensor([1, 1, 1])"
    )


def test_an_answer_that_needs_gradients_is_as_good_as_one_that_does_not():
    weight = torch.tensor(2.0, requires_grad=True)
    assert asking(lambda x: 2 * x, (torch.ones(3),)).verdict(lambda x: x * weight) == "right"


def test_an_answer_may_ask_for_the_gradient_of_its_input():
    x = torch.ones(2, requires_grad=True)

    def slope(x):
        return torch.autograd.grad((x**2).sum(), x)[0]

    assert asking(lambda x: 2 * x, (x,), (x * 2,)).verdict(slope) == "right"
    assert x.grad is None


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        ((torch.ones(3),), lambda x: x.zero_() + 1),
        ((np.ones(3),), lambda x: np.copyto(x, 0) or x + 1),
        (([1, 2],), lambda x: x.append(3) or x[:2]),
        (([1, [2]],), lambda x: x[1].append(3) or [1, [2]]),
        (({"a": 1},), lambda x: {"a": x.pop("a")}),
        (({"a": 1},), lambda x: x.update(a=2) or {"a": 1}),
    ],
)
def test_an_answer_that_changes_its_input_is_wrong_and_harms_no_later_call(arguments, change):
    same = asking(lambda x: x, arguments)
    assert same.verdict(change).endswith("changes its input")
    assert same.verdict(lambda x: x) == "right"


def test_an_answer_that_returns_its_input_is_not_spoilt_by_a_later_change():
    history = []

    def answer(x):
        history.append(x)
        history[0] += 1
        return x if len(history) > 1 else x - 1

    assert (
        asking(lambda x: x, (torch.ones(2),), (torch.ones(2),))
        .verdict(answer)
        .endswith("answer(tensor([1, 1])) changes its input")
    )


def test_an_answer_must_change_its_input_where_the_solution_does():
    def in_place(x):
        x.sort()

    assert asking(in_place, ([2, 1],)).verdict(in_place) == "right"
    told = asking(in_place, ([2, 1],)).verdict(lambda x: sorted(x) and None)
    assert told == "not done yet"
    both = asking(lambda x: x.sort() or 1, ([2, 1],))
    assert both.verdict(lambda *_: 1) == "wrong: answer([2, 1]) leaves its input as it was"


def test_generators_start_afresh_for_every_call():
    def draw(generator):
        return torch.rand(2, generator=generator)

    def draw_numpy(generator):
        return generator.random(2)

    assert asking(draw, (torch.Generator().manual_seed(1),)).verdict(draw) == "right"
    assert asking(draw_numpy, (np.random.default_rng(1),)).verdict(draw_numpy) == "right"


def test_what_cannot_be_copied_is_passed_as_it_is():
    lock = threading.Lock()
    with lock:
        assert asking(lambda x: x.locked(), (lock,)).verdict(lambda x: x.locked()) == "right"


def test_a_tolerance_says_how_near_is_right():
    pi = asking(lambda: math.pi, (), tolerance=0.002)
    assert pi.verdict(lambda: 22 / 7) == "right"
    assert pi.verdict(lambda: 3.1) == "wrong: answer() gives 3.1, expected 3.142"


@pytest.mark.parametrize(
    ("inputs", "mistakes", "told"),
    [
        ([(1,)], 1, "1 misconceptions; expected two or more"),
        ([], 2, "expected one or more tuples of arguments"),
        ([1.5], 2, r"inputs are \[1.5\]; expected one or more tuples"),
    ],
)
def test_an_exercise_that_can_tell_nothing_is_refused(inputs, mistakes, told):
    with pytest.raises(InputError, match=told):
        Exercise(abs, inputs, {f"mistake {i}": abs for i in range(mistakes)})


def test_a_sound_exercise_is_proved(exercise):
    exercise.prove(stub)


def test_a_stub_that_gives_the_answer_away_is_no_stub(exercise):
    with pytest.raises(AssertionError, match="the stub gets 'right', expected 'not done yet'"):
        exercise.prove(dice_from_iou)


def test_a_misconception_that_the_inputs_do_not_show_is_no_misconception():
    blind = Exercise(
        dice_from_iou, [(0.0,), (1.0,)], {ROUND: lambda j: j / (2 - j), TWICE: lambda j: 2 * j}
    )
    with pytest.raises(AssertionError, match=f"'{ROUND}' gets 'right', expected 'wrong: that is"):
        blind.prove(stub)


def test_two_misconceptions_that_the_inputs_do_not_tell_apart_are_refused():
    twins = Exercise(
        dice_from_iou, [(0.5,)], {TWICE: lambda j: 2 * j, "the other": lambda j: j + 0.5}
    )
    with pytest.raises(AssertionError, match=f"'the other' gets 'wrong: {TWICE}'"):
        twins.prove(stub)


def test_a_solution_that_is_not_always_the_same_is_refused():
    calls = []
    fickle = asking(lambda: calls.append(1) or len(calls), ())
    with pytest.raises(AssertionError, match="the solution gets 'wrong"):
        fickle.prove(lambda: None)


def test_exercises_do_not_need_torch():
    code = "import sys, segedu.exercises; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
