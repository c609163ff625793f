"""Builders of the optimizers in `decaylab.components.optimizers`: from settings and parameter groups."""

from __future__ import annotations

from typing import Any

import torch

from decaylab.config.schema import Optimizer
from decaylab.train.signsgd import SignSGD

Groups = list[dict[str, Any]]


def sgd(settings: Optimizer, groups: Groups, fused: bool) -> torch.optim.Optimizer:
    """Make torch's SGD."""
    weights = [p for group in groups for p in group["params"]]
    if any(p.device.type == "cpu" and p.itemsize < 4 for p in weights):
        fused = False  # torch's fused SGD computes wrong updates for bfloat16 and float16 weights on the CPU
    return torch.optim.SGD(
        groups, lr=settings.lr, momentum=settings.momentum, dampening=settings.dampening, fused=fused
    )


def adamw(settings: Optimizer, groups: Groups, fused: bool) -> torch.optim.Optimizer:
    """Make torch's AdamW without its decay."""
    return torch.optim.AdamW(
        groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, weight_decay=0.0, fused=fused
    )


def signsgd(settings: Optimizer, groups: Groups, fused: bool) -> torch.optim.Optimizer:
    """Make sign descent, which has no fused kernel."""
    return SignSGD(groups, lr=settings.lr, momentum=settings.momentum)
