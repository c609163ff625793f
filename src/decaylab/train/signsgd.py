"""Sign gradient descent, the paper's stand-in for Adam (appendix D.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class SignSGD(torch.optim.Optimizer):
    """Sign descent: w <- w - lr * sign(g), with the sign of a momentum buffer where one is asked for.

    With momentum b the buffer is m <- b m + (1 - b) g. Parameters without a gradient are left alone.

    Args:
        params: Parameters or parameter groups.
        lr: Step size; every coordinate moves by exactly this much.
        momentum: b; 0 takes the sign of the gradient itself.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Take one step.

        Args:
            closure: Evaluates the loss again; called once with gradients enabled, if given.

        Returns:
            The closure's loss, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            directions = [p.grad for p in parameters]
            if group["momentum"]:
                for p in parameters:
                    if "momentum_buffer" not in self.state[p]:
                        self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                buffers = [self.state[p]["momentum_buffer"] for p in parameters]
                torch._foreach_lerp_(buffers, directions, 1 - group["momentum"])
                directions = buffers
            if parameters:
                torch._foreach_add_(parameters, torch._foreach_sign(directions), alpha=-group["lr"])
        return loss
