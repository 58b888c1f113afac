import time

import pytest
import torch

from segedu.data.scenes import Scenes
from segedu.profiling.feed import pictures_per_second, split_wait


class Slow(torch.utils.data.Dataset):
    def __init__(self, length, pause):
        self.scene, self.length, self.pause = Scenes(1, size=16)[0], length, pause

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(self.pause)
        return self.scene


def test_pictures_are_counted_from_the_second_batch_on(clock):
    assert pictures_per_second(Slow(12, 0.01), batch_size=4) == pytest.approx(100)
    assert clock.now == pytest.approx(0.12)


def test_workers_load_at_the_same_time():
    data = Slow(32, 0.03)
    assert pictures_per_second(data, batch_size=2, workers=2) > 1.3 * pictures_per_second(
        data, batch_size=2
    )


def test_waiting_is_told_from_learning(clock):
    def slowly():
        for batch in range(3):
            time.sleep(0.04)
            yield batch

    taken = split_wait(slowly(), lambda _: time.sleep(0.01))
    assert taken == pytest.approx({"waiting": 0.12, "steps": 0.03})


@pytest.mark.gpu
def test_pinned_batches_come_as_well():
    assert pictures_per_second(Slow(8, 0), batch_size=2, pin_memory=True) > 0
