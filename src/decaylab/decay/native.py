"""When can the optimizer's own kernel do the decay, exactly as the rule would?

A separate pass over all weights costs a tenth or more of a fused step. torch's kernels decay while they update, so
where the kernel computes what the rule says, the rule's number is lent to the param group for the duration of one
step. The group reads ``weight_decay = 0`` again as soon as the step is over.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.optim import Optimizer

# Exact types: a subclass may use its group's weight_decay in another way.
_COUPLED: tuple[type[Optimizer], ...] = (torch.optim.SGD,)
_FLAGGED: tuple[type[Optimizer], ...] = (
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.NAdam,
    torch.optim.RAdam,
)
_DECOUPLED: tuple[type[Optimizer], ...] = tuple(
    kind for kind in (getattr(torch.optim, "Muon", None),) if isinstance(kind, type)
)


def convention(optimizer: Optimizer, group: dict[str, Any]) -> Literal["coupled", "decoupled"] | None:
    """Say what the optimizer does with ``group["weight_decay"]``.

    Returns:
        ``coupled``: g + lambda p, before momentum or moments. ``decoupled``: p (1 - lr lambda), beside the update.
        None: not known.
    """
    kind = type(optimizer)
    if kind in _COUPLED:
        return "coupled"
    if kind in _FLAGGED:
        return "decoupled" if group.get("decoupled_weight_decay", False) else "coupled"
    if kind in _DECOUPLED:
        return "decoupled"
    return None
