"""When can the optimizer's own kernel do the decay, exactly as the rule would?

A separate pass over all weights costs a third of a fused step. torch's kernels decay while they update, so where the
kernel computes what the rule says, the rule's number is lent to the param group for the duration of one step. The group
reads ``weight_decay = 0`` again as soon as the step is over.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.optim import Optimizer

Convention = Literal["coupled", "decoupled"]

_FLAG = "decoupled_weight_decay"
# Exact types: a subclass may use its group's weight_decay in another way.
_FLAGGED: tuple[type[Optimizer], ...] = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam)
# Where there is no switch: SGD, and Adam's family in older versions of torch.
_FIXED: dict[type[Optimizer], Convention] = {
    torch.optim.SGD: "coupled",
    torch.optim.Adam: "coupled",
    torch.optim.AdamW: "decoupled",
}
if hasattr(torch.optim, "Muon"):
    _FIXED[torch.optim.Muon] = "decoupled"


class Loan:
    """A decay coefficient lent to the kernel of one param group.

    The kernel then does ``coupled``: g + lambda p, before momentum or moments; or ``decoupled``: p (1 - lr lambda),
    beside the update.

    Attributes:
        group: The group.
    """

    def __init__(self, group: dict[str, Any], changes: dict[str, Any]) -> None:
        self.group = group
        self._before = {key: group[key] for key in changes}
        group.update(changes)

    def give_back(self) -> None:
        """Put the group's settings back."""
        self.group.update(self._before)


def lend(optimizer: Optimizer, group: dict[str, Any], convention: Convention, weight_decay: float) -> Loan | None:
    """Let the optimizer's kernel decay a group by a convention, if it is known to do just that.

    Args:
        optimizer: The optimizer.
        group: One of its groups, whose own weight_decay is 0.
        convention: How to decay.
        weight_decay: lambda.

    Returns:
        The loan, to be given back after the step; None where the kernel does not have this convention.
    """
    kind = type(optimizer)
    if kind in _FLAGGED and _FLAG in group:
        # Adam and AdamW are one kernel with a switch, so each can do either.
        return Loan(group, {"weight_decay": weight_decay, _FLAG: convention == "decoupled"})
    return Loan(group, {"weight_decay": weight_decay}) if _FIXED.get(kind) == convention else None
