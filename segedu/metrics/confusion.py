"""Metrics that follow from counting, for each true class, which class was predicted.

Chapter 01 uses them; chapter 08 derives them.
"""

import torch
import torch.distributed as dist
from jaxtyping import Float, Int, Integer
from torch import Tensor

from segedu.data.sample import IGNORE
from segedu.errors import InputError


class ConfusionMatrix:
    """Counts of pixels by true class (row) and predicted class (column).

    Feed it batch after batch; the metrics are those of all pixels seen so far, as if they were one
    large image. That is not the mean of the metrics of each image.

    Every metric is a fraction in [0, 1]. A class that was neither true nor predicted anywhere has
    no score: its entry is nan, and `mean_iou` leaves it out.

    Args:
        num_classes: C, from 1 to 255.

    Example:
        >>> import torch
        >>> cm = ConfusionMatrix(num_classes=2)
        >>> cm.update(prediction=torch.tensor([0, 1, 1]), target=torch.tensor([0, 1, 0]))
        >>> cm.iou()
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """

    def __init__(self, num_classes: int) -> None:
        if not 1 <= num_classes <= IGNORE:
            raise InputError(f"ConfusionMatrix: num_classes is {num_classes}; expected 1..{IGNORE}")
        self.counts: Int[Tensor, "c c"] = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(
        self, prediction: Integer[Tensor, "*pixels"], target: Integer[Tensor, "*pixels"]
    ) -> None:
        """Count the pixels of one batch.

        Args:
            prediction: Class indices 0..C-1, of any shape; anything where `target` is `IGNORE`.
            target: Class indices 0..C-1 or `IGNORE`, of the same shape.

        Raises:
            InputError: If an index is outside 0..C-1; nothing is counted then.
        """
        num_classes = len(self.counts)
        if _indices_fit(prediction, num_classes):
            # Void is a row like any other, the last of 256, and is cut off: that is quicker than
            # picking out the labelled pixels. A wrong target lands in a row in between, or below 0.
            pair = torch.add(prediction.long(), target.long(), alpha=num_classes).flatten()
            rows = _count(pair, num_classes)
            if rows is not None:
                self.counts += rows[:num_classes].to(self.counts.device)
                return
        self._update_labelled(prediction, target)

    def _update_labelled(
        self, prediction: Integer[Tensor, "*pixels"], target: Integer[Tensor, "*pixels"]
    ) -> None:
        """The same for labelled pixels alone: says what is wrong, and lets void be anything."""
        num_classes = len(self.counts)
        labelled = target != IGNORE
        true, predicted = target[labelled].long(), prediction[labelled].long()
        for name, index in (("target", true), ("prediction", predicted)):
            if index.numel() and not 0 <= index.min() <= index.max() < num_classes:
                raise InputError(
                    f"{name} has values {index.min()}..{index.max()}; "
                    f"expected class indices 0..{num_classes - 1}"
                )
        counts = (true * num_classes + predicted).bincount(minlength=num_classes**2)
        self.counts += counts.view(num_classes, num_classes).to(self.counts.device)

    def sum_across_processes(self) -> None:
        """Add up the counts of all processes of a `torchrun`; does nothing outside one."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.counts)

    def iou(self) -> Float[Tensor, " c"]:
        """Intersection over union of each class."""
        hit, true, predicted = self._hit_true_predicted()
        return hit / (true + predicted - hit)

    def dice(self) -> Float[Tensor, " c"]:
        """Dice coefficient (F1) of each class."""
        hit, true, predicted = self._hit_true_predicted()
        return 2 * hit / (true + predicted)

    def precision(self) -> Float[Tensor, " c"]:
        """Share of the pixels predicted as a class that are of it; nan where none was predicted."""
        hit, _, predicted = self._hit_true_predicted()
        return hit / predicted

    def recall(self) -> Float[Tensor, " c"]:
        """Share of a class's pixels that were predicted as it; nan where there is none."""
        hit, true, _ = self._hit_true_predicted()
        return hit / true

    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that have one; nan if none has."""
        return self.iou().nanmean().item()

    def frequency_weighted_iou(self) -> float:
        """Mean of `iou` with each class's share of the true pixels as its weight; nan if none is.

        Source: Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
        section 5. https://arxiv.org/abs/1411.4038
        """
        _, true, _ = self._hit_true_predicted()
        occurs = true > 0
        return ((true * self.iou())[occurs].sum() / true.sum()).item()

    def pixel_accuracy(self) -> float:
        """Share of labelled pixels whose class was predicted; nan if none is labelled."""
        return (self.counts.trace().double() / self.counts.sum()).item()

    def _hit_true_predicted(
        self,
    ) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"], Float[Tensor, " c"]]:
        counts = self.counts.double()
        return counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)


def _indices_fit(index: Integer[Tensor, "*pixels"], num_classes: int) -> bool:
    """Whether all of `index` lies in 0..num_classes - 1; also of nothing at all."""
    if not index.numel():
        return True
    low, high = index.aminmax()
    return bool(low >= 0) and bool(high < num_classes)


def _count(pair: Int[Tensor, " n"], num_classes: int) -> Int[Tensor, "256 c"] | None:
    """How often each pair occurs, true by predicted; None if a row is no class and not void."""
    if pair.numel() and pair.min() < 0:
        return None
    counts = pair.bincount(minlength=(IGNORE + 1) * num_classes)
    if (
        len(counts) > (IGNORE + 1) * num_classes
        or counts[num_classes**2 : IGNORE * num_classes].any()
    ):
        return None
    return counts.view(IGNORE + 1, num_classes)
