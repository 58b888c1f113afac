"""Predictions against sums by hand, real tensors and what a step took."""

import pytest
import torch
from torch import nn

from segedu.losses import cross_entropy_loss
from segedu.models.unet import UNet
from segedu.profiling.memory import kept_bytes, predict_memory, size_of
from segedu.profiling.trace import peak_bytes

CPU = torch.device("cpu")


def test_a_square_keeps_its_input_once():
    x = torch.rand(10, requires_grad=True)
    assert kept_bytes(lambda: x.square().sum()) == 40
    assert kept_bytes(lambda: x.square().sum(), but=[x]) == 0


def test_two_layers_that_keep_the_same_map_count_it_once():
    x = torch.rand(4, 4)
    a, b = (nn.Linear(4, 3) for _ in range(2))
    kept = kept_bytes(lambda: a(x).sum() + b(x).sum(), but=[*a.parameters(), *b.parameters()])
    assert kept == 4 * 16


def test_nothing_is_kept_without_gradients():
    x = torch.rand(10)
    assert kept_bytes(lambda: x.square().sum()) == 0


def test_weights_gradients_and_adams_means_are_sixteen_bytes_a_weight():
    memory = predict_memory(nn.Conv2d(3, 5, 1), (2, 3, 4, 4))
    assert (memory.weights, memory.gradients, memory.optimizer) == (80, 80, 160)
    # the picture, the log-probabilities with their targets, and what the loss keeps of the void
    assert memory.activations >= 4 * 2 * 16 * (3 + 5) + 8 * 2 * 16
    assert memory.total == 80 + 80 + 160 + memory.activations


def test_plain_gradient_descent_keeps_nothing_and_buffers_are_weights():
    memory = predict_memory(
        nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2)), (1, 3, 4, 4), per_weight=0
    )
    assert memory.optimizer == 0
    assert memory.gradients == 4 * (6 + 4)
    assert memory.weights == memory.gradients + 4 * 2 * 2 + 8


def test_the_prediction_is_what_real_tensors_keep():
    memory = predict_memory(UNet(6, widths=(4, 8)), (2, 3, 32, 32))
    net = UNet(6, widths=(4, 8))
    images, masks = torch.rand(2, 3, 32, 32), torch.randint(6, (2, 32, 32))
    real = kept_bytes(lambda: cross_entropy_loss(net(images), masks), but=net.parameters())
    assert memory.activations == pytest.approx(real, rel=0.01)


def test_a_step_takes_about_what_was_predicted():
    memory = predict_memory(UNet(6, widths=(8, 16)), (4, 3, 64, 64))
    net = UNet(6, widths=(8, 16))
    images, masks = torch.rand(4, 3, 64, 64), torch.randint(6, (4, 64, 64))
    peak = peak_bytes(lambda: cross_entropy_loss(net(images), masks).backward(), CPU)
    assert 0.9 < peak / (memory.activations + memory.gradients) < 1.5


def test_sizes_are_in_bytes():
    assert size_of([torch.rand(3), torch.zeros(2, dtype=torch.long)]) == 12 + 16


@pytest.mark.gpu
def test_a_gpus_step_takes_about_what_was_predicted():
    memory = predict_memory(UNet(6, widths=(32, 64)), (8, 3, 128, 128))
    net = UNet(6, widths=(32, 64)).cuda()
    images = torch.rand(8, 3, 128, 128, device="cuda")
    masks = torch.randint(6, (8, 128, 128), device="cuda")

    def step():
        net.zero_grad()
        cross_entropy_loss(net(images), masks).backward()

    step()  # the libraries' own memory
    peak = peak_bytes(step, torch.device("cuda"))
    assert 0.8 < peak / (memory.activations + memory.gradients) < 1.8
