"""The two sets of operators that Mask R-CNN can be built with: written out, or torchvision's."""

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
        roi_align: As `segedu.models.mask_rcnn.roi_align.roi_align`.
    """

    batched_nms: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    roi_align: Callable[..., Tensor]


OPERATORS: Mapping[str, Operators] = MappingProxyType(
    {
        "written": Operators(batched_nms, roi_align),
        "torchvision": Operators(ops.batched_nms, ops.roi_align),
    }
)
"""Both give the same; torchvision's are quicker."""


def choose_operators(name: str) -> Operators:
    """The operators of a name.

    Raises:
        InputError: If there are none of that name.
    """
    if name not in OPERATORS:
        raise InputError(f"operators are {name!r}; choose one of: {', '.join(OPERATORS)}")
    return OPERATORS[name]
