"""Batch normalisation over the batches of all processes; chapter 21 derives it.

torch has `nn.SyncBatchNorm`, for GPUs alone; this one is for any device.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segedu import distributed

Channels = Float[Tensor, " c"]


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch normalisation whose batch is what all processes of a group have together.

    Outside a group, and in evaluation, it is `nn.BatchNorm2d`. Mean and variance are computed in 32
    bits or more.

    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015, algorithm 1; over devices: Peng et
    al., "MegDet", CVPR 2018, section 3.3.
    """

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:  # noqa: A002
        """Each channel with mean 0 and variance 1 over all processes, then scaled and shifted."""
        if not (self.training and distributed.in_group()):
            normal: Tensor = super().forward(input)
            return normal
        x = input if input.dtype == torch.float64 else input.float()
        mean, variance, count = moments(x)
        self._remember(mean, variance, count)
        scale = (variance + self.eps).rsqrt()
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return (x * _over_pixels(scale) + _over_pixels(shift)).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Channels, variance: Channels, count: Float[Tensor, ""]) -> None:
        """Move the running averages; torch's variance there is that of a sample, over count - 1."""
        averages = (self.running_mean, self.running_var)
        if not self.track_running_stats or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        for average, value in zip(averages, (mean, variance * count / (count - 1)), strict=True):
            average.lerp_(value, rate)  # type: ignore[union-attr]


def moments(
    x: Float[Tensor, "b c h w"],
) -> tuple[Channels, Channels, Float[Tensor, ""]]:
    """Mean and variance of each channel over all processes, and over how many values.

    First the mean, then the mean square around it: the mean of squares less the square of the mean
    would lose digits.
    """
    own = x[:0] if distributed.is_absent() else x
    count = own.new_full((1,), own.numel() // own.shape[1])
    sums = distributed.summed(torch.cat([own.sum((0, 2, 3)), count]))
    mean, count = sums[:-1] / sums[-1], sums[-1].detach()
    squares = distributed.summed((own - _over_pixels(mean)).square().sum((0, 2, 3)))
    return mean, squares / count, count


def synchronise(model: nn.Module) -> None:
    """Make every `BatchNorm2d` in a model, in place, one over all processes; weights stay."""
    for part in list(model.modules()):
        for name, child in part.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(part, name, _synchronised(child))


def _synchronised(norm: nn.BatchNorm2d) -> SyncBatchNorm:
    """The same with its very weights and averages."""
    new = SyncBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    ).train(norm.training)
    new._parameters, new._buffers = norm._parameters, norm._buffers
    return new


def _over_pixels(channels: Channels) -> Float[Tensor, "c 1 1"]:
    return channels[:, None, None]
