"""How much of a decay reaches weights that are stored in low precision, measured on a private copy of the optimizer.

With 8 significant bits 256 + 1 = 256: a share below half the spacing of bfloat16 (0.2 to 0.4 %) is rounded away where
the decay is a pass of its own, and only where the update moves the weight too can it act in a fused kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from decaylab.conformance.instance import copy_of, settings_of, unseen

LOW = (torch.bfloat16, torch.float16)
_ENTRIES, _COLUMNS, _STEPS = 1024, 16, 8


@torch.no_grad()
def share_kept(
    optimizer: Optimizer,
    group: Mapping[str, Any],
    parameters: Sequence[Tensor],
    *,
    lr: float,
    weight_decay: float,
    coupled: bool,
) -> float | None:
    """Compare the effect of decay on stored weights with its effect in float32.

    Two copies of the optimizer, with and without decay, step a sample of the weights with a sample of their gradients
    under random signs, in the weights' own type and in float32. With D the difference of the two after a few steps,
    the result is ``<D_low, D_32> / |D_32|^2``.

    Args:
        optimizer: The optimizer in use; only its class and settings are read.
        group: The param group.
        parameters: Parameters of one low-precision type with gradients; they are only read.
        lr: Learning rate.
        weight_decay: The coefficient that the kernel is given.
        coupled: Whether it goes through the gradient, where the group has a switch for that.

    Returns:
        The share: 1 where nothing is lost, 0 where no weight gets any decay. None where no copy can be stepped.
    """
    weights, gradients = _sample(parameters), _sample([p.grad for p in parameters if p.grad is not None])
    if weights is None or gradients is None or len(weights) != len(gradients):
        return None
    make = copy_of(optimizer, settings_of(optimizer, group))
    generator = torch.Generator().manual_seed(0)
    signs = [torch.randint(0, 2, weights.shape, generator=generator) * 2.0 - 1.0 for _ in range(_STEPS)]
    signs = [sign.to(weights.device) for sign in signs]

    def run(dtype: torch.dtype, coefficient: float) -> Tensor:
        weight = nn.Parameter(weights.to(dtype, copy=True))
        copy = make([weight], lr=lr, weight_decay=coefficient)
        for part in copy.param_groups:
            if "decoupled_weight_decay" in part:
                part["decoupled_weight_decay"] = not coupled
        for sign in signs:
            weight.grad = (gradients * sign).to(dtype)
            copy.step()
        return weight.detach().double() if weights.device.type != "mps" else weight.detach().float()

    low = parameters[0].dtype
    try:
        with unseen():
            stored = run(low, 0.0) - run(low, weight_decay)
            exact = run(torch.float32, 0.0) - run(torch.float32, weight_decay)
    except Exception:  # a foreign class may raise anything; nothing is said then
        return None
    square = float(exact.square().sum())
    found = float((stored * exact).sum()) / square if square > 0 else math.nan
    return found if math.isfinite(found) else None


def _sample(tensors: Sequence[Tensor]) -> Tensor | None:
    """Take evenly spaced entries, the same number of every tensor, as a matrix in float32."""
    whole = [t.detach() for t in tensors if t.numel() and t.layout is torch.strided]
    if not whole:
        return None
    each = max(1, _ENTRIES // len(whole))
    local = [(t.to_local() if hasattr(t, "to_local") else t).reshape(-1) for t in whole[:_ENTRIES]]
    picked = torch.cat([t[:: max(1, -(-t.numel() // each))][:each].float().to(local[0].device) for t in local])
    count = len(picked) // _COLUMNS * _COLUMNS
    return picked[:count].reshape(-1, _COLUMNS) if count else picked.reshape(1, -1)
