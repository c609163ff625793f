"""Share of a weight that one step removes: the formula of every convention, and the terms that a decay rule states.

The one place with these formulas. Decay rules, `CONVENTIONS`, the conformance check, the validation of settings and the
probes call them, so that a lambda means the same everywhere. Numbers may be floats or 0-d tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, Union

if TYPE_CHECKING:
    from torch import Tensor

Number: TypeAlias = Union[float, "Tensor"]  # this room imports no torch
Target = Literal["zero", "anchor", "norm"]


def decoupled(lr: Number, weight_decay: Number) -> Number:
    """Return ``lr lambda``: PyTorch's AdamW (Loshchilov and Hutter 2019, in torch's convention)."""
    return lr * weight_decay


def independent(lr: Number, weight_decay: Number, peak_lr: Number) -> Number:
    """Return ``lambda lr / lr_peak``: the schedule's multiplier alone (Wortsman et al. 2023)."""
    return weight_decay * (lr / peak_lr)


def constant(weight_decay: Number) -> Number:
    """Return ``lambda``: the same share in every step."""
    return weight_decay


def quadratic(lr: Number, weight_decay: Number) -> Number:
    """Return ``lr^2 lambda`` (Chowdhery et al. 2022, PaLM)."""
    return lr * lr * weight_decay


def corrected(lr: Number, weight_decay: Number, peak_lr: Number) -> Number:
    """Return ``lambda lr^2 / lr_peak`` (Defazio 2025, AdamC)."""
    return lr * (weight_decay * (lr / peak_lr))


def momentum_gain(momentum: float, dampening: float = 0.0) -> float:
    """Return what SGD's momentum multiplies a constant gradient by in the long run, (1 - dampening) / (1 - momentum).

    1 without momentum, whatever the dampening: torch's first buffer is the gradient itself.
    """
    return (1 - dampening) / (1 - momentum) if momentum else 1.0


def coupled(lr: Number, weight_decay: Number, momentum: float = 0.0, dampening: float = 0.0) -> Number:
    """Return ``lr lambda (1 - dampening) / (1 - momentum)``: L2 in SGD's gradient, once the buffer has settled."""
    return lr * weight_decay * momentum_gain(momentum, dampening)


def stable_sgd(lr: Number, weight_decay: Number, momentum: float, dampening: float = 0.0) -> Number:
    """Return ``lr lambda (1 - dampening) / (1 - momentum)``, beside the update (Xie et al. 2023, SGDS)."""
    return lr * weight_decay * ((1 - dampening) / (1 - momentum))


def proximal(lr: Number, weight_decay: Number) -> Number:
    """Return ``lr lambda / (1 + lr lambda)``: the decay as an implicit step."""
    return lr * weight_decay / (1 + lr * weight_decay)


def exponential(lr: Number, weight_decay: Number) -> Number:
    """Return ``1 - exp(-lr lambda)``."""
    product = lr * weight_decay
    return -math.expm1(-product) if isinstance(product, float | int) else -(-product).expm1()


@dataclass(frozen=True, kw_only=True)
class DecayTerms:
    """What a step takes from the weights: ``w <- (1 - share) w`` beside the update, ``g <- g + coupled w`` before it.

    Attributes:
        share: Share of the old weight removed beside the update. NaN where it depends on weights or gradients, so that
            no number is known before the step: it is then measured from the weights.
        coupled: Coefficient of decay that goes through the gradient.
        target: What the weights are pulled to: ``"zero"``, an ``"anchor"`` (earlier weights), or a ``"norm"`` (a length
            that is held, bounded or approached).
    """

    share: Number = 0.0
    coupled: Number = 0.0
    target: Target = "zero"


MEASURED = DecayTerms(share=math.nan)
HELD_NORM = DecayTerms(share=math.nan, target="norm")
