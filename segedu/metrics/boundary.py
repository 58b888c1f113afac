"""How well boundaries agree: precision, recall and F1 of boundary pixels, with a tolerance.

Chapter 03 derives it for edges that several people drew, chapter 08 for masks of classes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Integer
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_array, diags_array, hstack
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import KDTree
from torch import Tensor

from segedu.data.sample import IGNORE
from segedu.errors import InputError


@dataclass(frozen=True)
class BoundaryCounts:
    """Boundary pixels of one or more pictures, counted; `+` adds up pictures.

    Attributes:
        right: Predicted boundary pixels that have a true one near.
        predicted: All predicted boundary pixels.
        found: True boundary pixels that have a predicted one near; those of all people together.
        true: All true boundary pixels.
    """

    right: int = 0
    predicted: int = 0
    found: int = 0
    true: int = 0

    def __add__(self, other: "BoundaryCounts") -> "BoundaryCounts":
        return BoundaryCounts(
            self.right + other.right,
            self.predicted + other.predicted,
            self.found + other.found,
            self.true + other.true,
        )

    @property
    def precision(self) -> float:
        """Share of the predicted boundary that is right; nan if none was predicted."""
        return self.right / self.predicted if self.predicted else math.nan

    @property
    def recall(self) -> float:
        """Share of the true boundary that was found; nan if there is none."""
        return self.found / self.true if self.true else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if one side alone is empty, nan if both are."""
        if not self.predicted and not self.true:
            return math.nan
        if not self.right or not self.found:
            return 0.0
        return 2 / (1 / self.precision + 1 / self.recall)


def region_boundary(inside: Bool[Tensor, "*b h w"]) -> Bool[Tensor, "*b h w"]:
    """Pixels of a region with a pixel above, below, left or right that is not of it.

    The picture's frame is no boundary: what lies beyond it counts as inside.
    """
    surrounded = torch.ones_like(inside)
    surrounded[..., 1:, :] &= inside[..., :-1, :]
    surrounded[..., :-1, :] &= inside[..., 1:, :]
    surrounded[..., 1:] &= inside[..., :-1]
    surrounded[..., :-1] &= inside[..., 1:]
    return inside & ~surrounded


def count_near(
    prediction: Bool[Tensor, "h w"], truth: Bool[Tensor, "h w"], tolerance: float
) -> BoundaryCounts:
    """Count boundary pixels that have one of the other map within `tolerance`; any may be shared.

    Args:
        prediction: Predicted boundary pixels.
        truth: True ones.
        tolerance: Largest distance between pixel centres, in pixels; 0 asks for the same pixel.

    Raises:
        InputError: If `tolerance` is negative or nan.
    """
    _need_tolerance(tolerance)
    a, b = _numpy(prediction), _numpy(truth)
    return BoundaryCounts(
        right=int((a & _near(b, tolerance)).sum()),
        predicted=int(a.sum()),
        found=int((b & _near(a, tolerance)).sum()),
        true=int(b.sum()),
    )


def count_matched(
    prediction: Bool[Tensor, "h w"], people: Bool[Tensor, "p h w"], tolerance: float
) -> BoundaryCounts:
    """Count boundary pixels matched one to one with those that each of several people drew.

    For each person as many pairs as possible are made, no pixel in two of them, of the least
    distance in sum. A predicted pixel is right if any person has a partner for it; each true pixel
    of each person is found or missed. A doubled or thick line is thus wrong, which `count_near`
    forgives.

    Args:
        prediction: Predicted boundary pixels.
        people: The true ones of each of P people, P >= 1.
        tolerance: Largest distance between pixel centres, in pixels; 0 asks for the same pixel.

    Raises:
        InputError: If `tolerance` is negative or nan.

    Source:
        Martin, Fowlkes and Malik, "Learning to detect natural image boundaries using local
        brightness, color, and texture cues", PAMI 2004, https://doi.org/10.1109/TPAMI.2004.1273918;
        the counts over people are those of the BSDS500 benchmark.
    """
    _need_tolerance(tolerance)
    predicted = np.argwhere(_numpy(prediction))
    right, found = np.zeros(len(predicted), dtype=bool), 0
    for person in people:
        partner = _partners(predicted, np.argwhere(_numpy(person)), tolerance)
        right |= partner
        found += int(partner.sum())
    return BoundaryCounts(int(right.sum()), len(predicted), found, int(people.sum()))


def class_boundary_counts(
    prediction: Integer[Tensor, "*b h w"],
    target: Integer[Tensor, "*b h w"],
    tolerance: float,
    *,
    num_classes: int | None = None,
) -> list[BoundaryCounts]:
    """Boundary pixels of each class within `tolerance` of the other mask's; see `boundary_f1`.

    Raises:
        InputError: If an index is outside 0..C-1, or `tolerance` is negative or nan.
    """
    _need_tolerance(tolerance)
    labelled = target != IGNORE
    counts = []
    for c in range(_need_classes(prediction[labelled], target[labelled], num_classes)):
        ours, truth = (region_boundary((m == c) & labelled) for m in (prediction, target))
        pictures = zip(*(m.reshape(-1, *m.shape[-2:]) for m in (ours, truth)), strict=True)
        counts.append(sum((count_near(a, b, tolerance) for a, b in pictures), BoundaryCounts()))
    return counts


def boundary_f1(
    prediction: Integer[Tensor, "*b h w"],
    target: Integer[Tensor, "*b h w"],
    tolerance: float,
    *,
    num_classes: int | None = None,
) -> Float64[Tensor, " c"]:
    """Boundary F1 of each class, in [0, 1]; nan for a class that has no boundary on either side.

    A pixel is on its class's boundary if a pixel above, below, left or right is not of that class.
    Precision is the share of predicted boundary pixels within `tolerance` of a true one of the same
    class, recall the share of true ones within `tolerance` of a predicted one. The pixels of all
    pictures given are counted together. The source scores each picture by itself: for that, call
    this picture by picture and take the `nanmean`.

    Void takes no part: what was predicted there changes nothing, and no boundary pixel lies there.
    A region that touches void ends there, in prediction and truth alike. So a void ring around each
    object hides errors of less than its width, and is kind to a class on the wrong side of it:
    where there is a truth without void, score against that.

    Args:
        prediction: Class indices 0..C-1; anything where `target` is `IGNORE`.
        target: Class indices 0..C-1 or `IGNORE`, of the same shape.
        tolerance: Largest distance between pixel centres, in pixels. Papers give a share of the
            diagonal, often 0.0075: that is 1 pixel for 96 x 96, 4 for 321 x 481.
        num_classes: C; if not given, as many as the largest index needs.

    Raises:
        InputError: If an index is outside 0..C-1, or `tolerance` is negative or nan.

    Source:
        Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic
        segmentation?", BMVC 2013, https://doi.org/10.5244/C.27.32. Void as in the evaluation of
        Takikawa et al., "Gated-SCNN", ICCV 2019, https://github.com/nv-tlabs/GSCNN.

    Example:
        >>> target = torch.tensor([[0, 0, 0, 1, 1, 1]])
        >>> boundary_f1(torch.tensor([[0, 0, 1, 1, 1, 1]]), target, tolerance=0)
        tensor([0., 0.], dtype=torch.float64)
        >>> boundary_f1(torch.tensor([[0, 0, 1, 1, 1, 1]]), target, tolerance=1)
        tensor([1., 1.], dtype=torch.float64)
    """
    counts = class_boundary_counts(prediction, target, tolerance, num_classes=num_classes)
    return torch.tensor([one.f1 for one in counts], dtype=torch.float64)


def _partners(
    points: Int64[np.ndarray, "n 2"], others: Int64[np.ndarray, "m 2"], tolerance: float
) -> Bool[np.ndarray, " n"]:
    """Which points get one of `others` for themselves, in a largest matching of least distance.

    The fewer of the two choose, which is up to ten times quicker. Each may also stay alone, at a
    price that no saving in distance makes up for: so each has some partner, and the cheapest full
    matching is the one wanted. (scipy's `maximum_bipartite_matching` gives as many pairs, but took
    two minutes for one pair of outlines.)
    """
    fewer, more = sorted((points, others), key=len)
    if not len(fewer):
        return np.zeros(len(points), dtype=bool)
    near = KDTree(fewer).sparse_distance_matrix(KDTree(more), tolerance, output_type="coo_matrix")
    alone = 1 + tolerance * (len(fewer) + 1)
    # + 1 since an entry of 0 would be no edge at all; each point pays it once, whatever its partner
    edges = csr_array((near.data + 1, (near.row, near.col)), shape=near.shape)
    cost = hstack([edges, diags_array(np.full(len(fewer), alone + 1.0))], format="csr")
    _, partner = min_weight_full_bipartite_matching(cost)
    if fewer is points:
        return np.asarray(partner < len(more))
    return np.isin(np.arange(len(points)), partner)


def _near(boundary: Bool[np.ndarray, "h w"], tolerance: float) -> Bool[np.ndarray, "h w"]:
    """Pixels whose centre is at most `tolerance` from that of a boundary pixel."""
    if not boundary.any():
        return np.zeros_like(boundary)
    return np.asarray(distance_transform_edt(~boundary) <= tolerance)


def _need_tolerance(tolerance: float) -> None:
    if not tolerance >= 0:
        raise InputError(f"tolerance is {tolerance}; expected a distance in pixels, 0 or more")


def _need_classes(
    predicted: Integer[Tensor, " n"], true: Integer[Tensor, " n"], num_classes: int | None
) -> int:
    """How many classes there are; refuses an index that is none of them."""
    if not len(true):
        return num_classes or 0
    last = max(int(predicted.max()), int(true.max())) if num_classes is None else num_classes - 1
    for name, index in (("prediction", predicted), ("target", true)):
        if not 0 <= index.min() <= index.max() <= last:
            raise InputError(
                f"{name} has values {index.min()}..{index.max()}; expected class indices 0..{last}"
            )
    return last + 1


def _numpy(boundary: Bool[Tensor, "h w"]) -> Bool[np.ndarray, "h w"]:
    return boundary.as_subclass(Tensor).cpu().numpy()
