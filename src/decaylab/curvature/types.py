"""Types that the curvature engine shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

if TYPE_CHECKING:
    pass

# loss_fn(model, batch) -> mean loss over the batch's examples, a scalar tensor
LossFunction: TypeAlias = Callable[[nn.Module, Any], Tensor]
