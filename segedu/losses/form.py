"""The one form of every loss, `loss(logits, target) -> scalar`, as types."""

from jaxtyping import Float, Int
from torch import Tensor

Logits = Float[Tensor, "b c h w"]
Target = Int[Tensor, "b h w"]
Scalar = Float[Tensor, ""]
