"""Which method is underneath? Slow restatements of SGD, Adam and Lion, to compare an unknown optimizer with.

Each is written from its paper's equation, one tensor at a time in float64, and shares no code with torch's optimizers.
The decay enters as `decaylab.conformance.entry` says, by the share that `decaylab.conformance.meaning` gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from decaylab.conformance.meaning import MEANINGS, Moment

# Gives the update of step t = 1, 2, ... for a gradient, to be multiplied by lr and subtracted.
Update = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Constants:
    """A method's constants as its parameter group names them, with torch's defaults for what it has not."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> Constants:
        """Read them from a parameter group; what has another type than it should is left at its default."""
        betas = group.get("betas", (group.get("beta1"), group.get("beta2")))
        known: dict[str, Any] = {}
        if isinstance(betas, list | tuple) and len(betas) >= 2 and all(isinstance(beta, float) for beta in betas[:2]):
            known["betas"] = (betas[0], betas[1])
        for name in ("eps", "momentum", "dampening"):
            if isinstance(group.get(name), int | float) and not isinstance(group.get(name), bool):
                known[name] = float(group[name])
        known["nesterov"] = bool(group.get("nesterov", False))
        return cls(**known)


def sgd(constants: Constants) -> Update:
    """SGD: b ← μ b + (1 - dampening) g, with b = g at first; the update is b, or g + μ b with Nesterov's momentum."""
    buffer: Tensor | None = None

    def update(step: int, gradient: Tensor) -> Tensor:
        nonlocal buffer
        if constants.momentum == 0:
            return gradient
        buffer = gradient if buffer is None else constants.momentum * buffer + (1 - constants.dampening) * gradient
        return gradient + constants.momentum * buffer if constants.nesterov else buffer

    return update


def _adam(constants: Constants, eps_after_correction: bool) -> Update:
    beta1, beta2 = constants.betas
    m: Tensor | float = 0.0
    v: Tensor | float = 0.0

    def update(step: int, gradient: Tensor) -> Tensor:
        nonlocal m, v
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient.square()
        correction = math.sqrt(1 - beta2**step)
        size = torch.sqrt(torch.as_tensor(v))
        denominator = size / correction + constants.eps if eps_after_correction else (size + constants.eps) / correction
        return m / (1 - beta1**step) / denominator

    return update


def adam(constants: Constants) -> Update:
    """Adam (Kingma and Ba, 2015): m̂ / (√v̂ + ε), with ε added after the bias correction of v."""
    return _adam(constants, eps_after_correction=True)


def adam_eps_before(constants: Constants) -> Update:
    """Adam with ε added to √v before its bias correction: the ε̂ form in section 2 of the paper."""
    return _adam(constants, eps_after_correction=False)


def lion(constants: Constants) -> Update:
    """Lion (Chen et al., 2023): sign(β1 m + (1 - β1) g), then m ← β2 m + (1 - β2) g."""
    beta1, beta2 = constants.betas
    m: Tensor | float = 0.0

    def update(step: int, gradient: Tensor) -> Tensor:
        nonlocal m
        sign = torch.sign(beta1 * m + (1 - beta1) * gradient)
        m = beta2 * m + (1 - beta2) * gradient
        return sign

    return update


METHODS: dict[str, tuple[str, Callable[[Constants], Update]]] = {
    "sgd": ("SGD", sgd),
    "adam": ("Adam", adam),
    "adam_eps_before": ("Adam with ε before the bias correction of v", adam_eps_before),
    "lion": ("Lion", lion),
}


def trajectory(
    base: str,
    constants: Constants,
    gradients: Sequence[Tensor],
    *,
    start: Tensor,
    lr: float,
    multipliers: Sequence[float],
    weight_decay: float = 0.0,
    meaning: str = "torch",
    entry: str = "before",
) -> list[Tensor]:
    """The weights after each step.

    Args:
        base: Key of `METHODS`.
        constants: The method's constants.
        gradients: One a step.
        start: The first weights.
        lr: Learning rate at multiplier 1.
        multipliers: The schedule.
        weight_decay: Lambda.
        meaning: Key of `MEANINGS`; not read when ``entry`` is ``l2``.
        entry: ``before``, ``after``, ``cautious`` or ``l2``.
    """
    update = METHODS[base][1](constants)
    weight, after, seen = start.clone(), [], 0.0
    for index, gradient in enumerate(gradients):
        now = lr * multipliers[index]
        seen = max(seen, now)
        moment = Moment(
            lr=now,
            lr_first=lr,
            lr_seen=seen,
            weight_decay=weight_decay,
            weight=weight,
            gradients=gradients[: index + 1],
            beta2=constants.betas[1],
            momentum=constants.momentum,
            dampening=constants.dampening,
        )
        change = now * update(index + 1, gradient + weight_decay * weight if entry == "l2" else gradient)
        share = 0.0 if entry == "l2" or not weight_decay else MEANINGS[meaning].share(moment)
        if entry == "after":
            weight = (weight - change) * (1 - share)
        elif entry == "cautious":
            weight = weight - change - share * torch.where(change * weight >= 0, weight, torch.zeros_like(weight))
        else:
            weight = weight - change - share * weight
        after.append(weight)
    return after
