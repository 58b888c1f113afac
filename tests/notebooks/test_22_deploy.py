"""Chapter 22's functions against the package and the libraries."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from taught import taught

from segedu.runs import warmup_cosine


@pytest.fixture(scope="module")
def chapter():
    return taught("22_deploy", also={"image_size", "C", "device", "cpu"})


@pytest.mark.parametrize("zero", [0, 85, 128, 255])
@pytest.mark.parametrize("scale", [0.01, 0.3, 2.0])
def test_the_chapters_eight_bits_are_torchs(chapter, scale, zero, random):
    x = 40 * torch.randn(500, generator=random)
    ours = scale * (chapter.quantised(x, scale, zero) - zero)
    expected = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)
    assert torch.allclose(ours, expected, atol=1.01 * scale)  # a tie may go either way
    assert (ours - expected).abs().gt(1e-4).float().mean() < 0.01


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (7, 5)])
def test_the_chapters_weights_are_torchs_per_channel(chapter, shape, random):
    w = torch.randn(shape, generator=random) * torch.arange(1, shape[0] + 1).view(
        -1, *[1] * (len(shape) - 1)
    )
    scale = w.abs().flatten(1).amax(1) / 127
    zeros = torch.zeros(shape[0], dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(w, scale, zeros, 0, -127, 127)
    assert torch.allclose(chapter.rounded(w, per_channel=True), expected, atol=1e-4)
    whole = torch.fake_quantize_per_tensor_affine(w, w.abs().max().item() / 127, 0, -127, 127)
    assert torch.allclose(chapter.rounded(w, per_channel=False), whole, atol=1e-4)


@pytest.mark.parametrize("shift", [0.0, 0.4, 3.0])
def test_the_chapters_distance_is_scipys(chapter, shift, random):
    a, b = torch.randn(40, generator=random), torch.randn(31, generator=random) + shift
    assert chapter.ks(a, b) == pytest.approx(ks_2samp(a, b).statistic, abs=1e-6)


def test_the_chapters_stability_index_counts_bins_of_equal_shares(chapter, random):
    a, b = torch.randn(200, generator=random), torch.randn(170, generator=random) + 0.3
    edges = np.quantile(a.numpy(), np.linspace(0, 1, 11)[1:-1])
    p, q = (
        np.bincount(np.searchsorted(edges, x.numpy()), minlength=10).clip(1e-3 * len(x)) / len(x)
        for x in (a, b)
    )
    assert chapter.psi_of(a, b) == pytest.approx(((q - p) * np.log(q / p)).sum(), rel=1e-3)
    assert chapter.psi_of(a, a) == 0
    assert chapter.psi_of(a, a + 100) > 5


def test_the_chapters_score_is_that_of_all_pictures_together(chapter):
    images, masks = chapter.drawn(20, 5)
    truth = torch.nn.functional.one_hot(masks.clamp(max=5), 6).movedim(3, 1).float()
    calls = iter(truth.split(16))
    assert chapter.scored(lambda _: next(calls), (images, masks)) == 1


def test_the_chapters_training_takes_steps_of_the_packages_schedule(chapter, random):
    data = torch.rand(10, 3, 8, 8, generator=random), torch.zeros(10, 8, 8, dtype=torch.int64)
    net, rates = torch.nn.Conv2d(3, 2, 1), []
    step = torch.optim.AdamW.step

    def noted(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", noted)
        assert not chapter.train(net, data, 7, rate=0.1).training
    assert rates == [0.1 * warmup_cosine(t, 7, 0.1) for t in range(7)]


def test_the_chapters_timings_leave_the_warm_up_out(chapter):
    calls = {"a": 0, "b": 0}

    def count(name):
        calls[name] += 1

    taken = chapter.timed({name: lambda name=name: count(name) for name in calls}, 5)
    assert calls == {"a": 7, "b": 7}
    assert {name: len(times) for name, times in taken.items()} == {"a": 5, "b": 5}
