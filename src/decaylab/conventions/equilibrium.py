"""Where decay and gradients balance: how far a weight then turns each step, and how large it is.

Derived for weights whose scale does not matter (those before a normalisation) under gradients that are random from step
to step (Kosson et al. 2023, "Rotational Equilibrium"). With d the share of the weight removed per step, a weight's
squared norm grows by the gradient's noise and shrinks by 2 d; where the two balance, the relative update per step,
which is also the rotation in radians, depends on d and the momentum only:

    AdamW   sqrt(2 d (1 - beta1) / (1 + beta1))
    SGD     sqrt(2 d (1 - mu) / (1 + mu)), for L2, where d = lr lambda / (1 - mu), this is sqrt(2 lr lambda / (1 + mu))
    Lion    sqrt(pi d) sqrt((1 - beta1)^2 + beta1^2 (1 - beta2) / (1 + beta2))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from decaylab.errors import DecaylabError

Optimizer = Literal["adamw", "sgd", "lion", "muon"]


@dataclass(frozen=True, kw_only=True)
class RotationInputs:
    """The part of an optimizer that decides the equilibrium."""

    optimizer: Optimizer = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise DecaylabError(f"betas must be two numbers of at least 0 and below 1, got {self.betas}")


def relative_update(decay_per_step: float, inputs: RotationInputs) -> float | None:
    """Return the expected update relative to the weight's norm at equilibrium: the rotation per step in radians.

    Args:
        decay_per_step: Share d of the weight that is removed per step.
        inputs: Optimizer and its momentum coefficients.

    Returns:
        The relative update, or None where no closed form is known (Muon).

    Wrong for weights whose scale does matter, for gradients that agree over many steps, and before about one
    timescale 1 / d has passed.
    """
    ratio = update_ratio(inputs)
    return None if ratio is None else math.sqrt(2 * decay_per_step * ratio)


def update_ratio(inputs: RotationInputs) -> float | None:
    """Return r, the squared length of one update over the variance that it adds in the long run.

    ``(1 - b) / (1 + b)`` with b beta1 of AdamW or the momentum of SGD; Lion
    ``pi/2 ((1 - beta1)^2 + beta1^2 (1 - beta2) / (1 + beta2))``.

    Args:
        inputs: Optimizer and its momentum coefficients.

    Returns:
        r, or None where no closed form is known (Muon).
    """
    beta1, beta2 = inputs.betas
    if inputs.optimizer == "adamw":
        return (1 - beta1) / (1 + beta1)
    if inputs.optimizer == "sgd":
        return (1 - inputs.momentum) / (1 + inputs.momentum)
    if inputs.optimizer == "lion":
        return math.pi / 2 * ((1 - beta1) ** 2 + beta1**2 * (1 - beta2) / (1 + beta2))
    return None


def rms_weight(decay_per_step: float, lr: float, inputs: RotationInputs) -> float | None:
    """Return the root mean square of a weight at equilibrium, where the update's size is known beforehand.

    The update of a weight divided by its relative size: AdamW lr / sqrt(2 d), which for d = lr lambda is
    sqrt(lr / (2 lambda)); Lion, whose updates are signs, lr / relative update.

    Args:
        decay_per_step: Share d of the weight that is removed per step.
        lr: Learning rate of the step.
        inputs: Optimizer and its momentum coefficients.

    Returns:
        The root mean square over a tensor's entries, or None: without decay there is no equilibrium, and for SGD it
        depends on the gradient's size (norm^4 = lr / (2 lambda) times the squared gradient norm at norm 1).
    """
    if decay_per_step <= 0:
        return None
    if inputs.optimizer == "adamw":
        return lr / math.sqrt(2 * decay_per_step)
    if inputs.optimizer == "lion":
        relative = relative_update(decay_per_step, inputs)
        return lr / relative if relative else None
    return None
