import pytest
import torch
from torch.utils.data import DataLoader, SequentialSampler

from segedu import distributed, parts
from segedu.loop import in_parts
from segedu.parts import Parts, Portion, in_step, own_batches, own_part


def test_a_part_of_a_batch_is_of_one_process(monkeypatch):
    for count in (1, 2, 3, 8):
        for images in range(10):
            monkeypatch.setattr(parts, "size", lambda count=count: count)
            dealt = []
            for rank in range(count):
                monkeypatch.setattr(parts, "rank", lambda rank=rank: rank)
                dealt.append(own_part(list(range(images))))
            assert [i for part in dealt for i in part] == list(range(images))
            lengths = [len(part) for part in dealt]
            assert max(lengths) - min(lengths) <= 1


def test_processes_go_in_step_where_one_has_nothing(monkeypatch):
    monkeypatch.setattr(parts, "size", lambda: 2)
    sampler = Parts(SequentialSampler(range(5)), 2)
    assert (list(sampler), len(sampler)) == ([[0], [2], [4]], 3)  # of 4 nothing is the first's
    assert list(sampler.lengths()) == [2, 2, 1]
    assert own_batches(5, 2) == [[0], [2]]
    monkeypatch.setattr(parts, "rank", lambda: 1)
    assert list(sampler) == [[1], [3], [4]]
    assert own_batches(5, 2) == [[1], [3], [4]]


def batches_of(images, batch_size):
    """Portions of batches of one number each, with what they hold."""
    loader = DataLoader(
        [{"image": i} for i in range(images)],
        batch_sampler=Parts(SequentialSampler(range(images)), batch_size),
        collate_fn=lambda samples: {"image": [sample["image"] for sample in samples]},
    )
    return [(p.batch["image"], p.own, p.most, p.images) for p in in_step(loader)]


def test_a_portion_says_what_is_whose(monkeypatch):
    assert batches_of(5, 4) == [([0, 1, 2, 3], 4, 4, 4), ([4], 1, 1, 1)]
    monkeypatch.setattr(parts, "size", lambda: 3)
    assert batches_of(5, 4) == [([0], 1, 2, 4), ([4], 0, 1, 1)]
    monkeypatch.setattr(parts, "rank", lambda: 2)
    assert batches_of(5, 4) == [([2, 3], 2, 2, 4), ([4], 1, 1, 1)]


def test_batches_that_nobody_cut_up_are_whole(monkeypatch):
    monkeypatch.setattr(parts, "size", lambda: 2)
    batch = {"image": torch.zeros(3)}
    assert list(in_step([batch])) == [Portion(batch, 3, 3, 3)]


@pytest.mark.parametrize(
    ("own", "shares", "absent"),
    [
        (3, [2 / 7, 1 / 7], [False, False]),
        (2, [2 / 6, 0], [False, True]),
        (0, [0, 0], [True, True]),
    ],
)
def test_processes_have_as_many_parts_and_are_absent_where_nothing_is_left(
    monkeypatch, own, shares, absent
):
    """Three images at most in a process, in parts of two; four in other processes."""
    monkeypatch.setattr(distributed, "size", lambda: 3)
    monkeypatch.setattr(distributed, "total", lambda value: value + 4)
    batch = {"image": torch.arange(max(1, own))}
    seen = [
        (part["image"].tolist(), share, distributed.is_absent())
        for part, share in in_parts(Portion(batch, own, 3, own + 4), 2)
    ]
    assert [share for _, share, _ in seen] == pytest.approx(shares)
    assert [flag for *_, flag in seen] == absent
    assert not distributed.is_absent()
    for (images, _, flag), first in zip(seen, (0, 2), strict=True):
        assert images == ([0] if flag else list(range(own))[first : first + 2])
