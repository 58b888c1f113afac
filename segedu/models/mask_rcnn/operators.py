"""The operators that Mask R-CNN can be built with: written out, torchvision's, or the quicker."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor
from torchvision import ops

from segedu.errors import InputError
from segedu.models.mask_rcnn.nms import batched_nms
from segedu.models.mask_rcnn.roi_align import roi_align


@dataclass(frozen=True)
class Operators:
    """What takes most of the time besides the convolutions.

    Attributes:
        batched_nms: As `segedu.models.mask_rcnn.nms.batched_nms`.
        roi_align: As `segedu.models.mask_rcnn.roi_align.roi_align`, to read features.
        crop: The same, to cut masks, which have one channel and no gradient.
    """

    batched_nms: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    roi_align: Callable[..., Tensor]
    crop: Callable[..., Tensor]


OPERATORS: Mapping[str, Operators] = MappingProxyType(
    {
        "written": Operators(batched_nms, roi_align, roi_align),
        "torchvision": Operators(ops.batched_nms, ops.roi_align, ops.roi_align),
        "quick": Operators(ops.batched_nms, roi_align, ops.roi_align),
    }
)
"""All give the same. On a CPU torchvision's RoIAlign has the slower gradient."""


def choose_operators(name: str) -> Operators:
    """The operators of a name.

    Raises:
        InputError: If there are none of that name.
    """
    if name not in OPERATORS:
        raise InputError(f"operators are {name!r}; choose one of: {', '.join(OPERATORS)}")
    return OPERATORS[name]
