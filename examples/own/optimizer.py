"""An optimizer of your own: any class that takes parameter groups and ``lr``, of yours or of a library.

decaylab train vision --optimizer.name examples/own/optimizer.py:NormalizedSGD --optimizer.lr 0.05 --epochs 2
decaylab train vision --optimizer.name torch.optim:NAdam --optimizer.lr 0.002 --epochs 2
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class NormalizedSGD(torch.optim.Optimizer):
    """Gradient descent with each tensor's gradient divided by its norm; the decay comes from the decay rule."""

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buffer.mul_(group["momentum"]).add_(p.grad / (p.grad.norm() + 1e-12))
                    p.sub_(buffer, alpha=float(group["lr"]))
