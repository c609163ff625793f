"""The classic decay rules: what is taken from a weight at each step, and which learning rate scales it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decaylab.decay.rule import DecayRule, Part, Scalar, ShrinkRule, Step
from decaylab.decay.sharding import like


@dataclass(frozen=True)
class L2(DecayRule):
    r"""Coupled decay, an L2 penalty: ``g <- g + lambda p`` before momentum and moments.

    The gradient that the user sees (``p.grad``) is the same before and after the step. With LBFGS the loss that its
    line search sees contains ``lambda / 2 ||p||^2`` too. Bit for bit ``torch.optim.SGD(weight_decay=lambda)`` and
    ``Adam(weight_decay=lambda)``. A zero gradient still decays.

    Attributes:
        weight_decay: lambda, the coefficient of ``lambda / 2 ||p||^2``.
    """

    edits_gradients: ClassVar[bool] = True

    def lend(self, convention: str | None, part: Part, step: Step) -> Scalar | None:
        """Return lambda for a kernel that couples."""
        return self.weight_decay * part.strength if convention == "coupled" else None

    def before(self, step: Step) -> None:
        """Put ``g + lambda p`` in the place of every gradient; ``attach`` puts the user's back after the step."""
        for part in step.parts:
            coefficient = self.weight_decay * part.strength
            if isinstance(coefficient, Tensor):
                sums = torch._foreach_add(part.grads, torch._foreach_mul(part.weights, coefficient))
            elif coefficient == 0:
                continue
            else:
                sums = torch._foreach_add(part.grads, part.weights, alpha=coefficient)
            for p, total in zip(part.params, sums, strict=True):
                p.grad = like(p, total)

    def penalty(self, step: Step) -> Scalar | None:
        """Return ``lambda / 2 sum ||p||^2``, for optimizers whose line search must see it in the loss."""
        total: Scalar = 0.0
        for part in step.parts:
            squares = torch.stack(torch._foreach_norm(part.weights)).square().sum()
            total = total + 0.5 * self.weight_decay * part.strength * squares
        return total


@dataclass(frozen=True)
class Decoupled(ShrinkRule):
    r"""Decoupled decay, AdamW's: ``p <- p (1 - lr lambda)``, then the optimizer's own update.

    Bit for bit ``torch.optim.AdamW(weight_decay=lambda)``. A zero gradient still decays.
    Loshchilov and Hutter 2019, in torch's convention (times lr).

    Attributes:
        weight_decay: lambda, multiplied by the learning rate of each step.
    """

    weight_decay: float = 1e-2

    def shrink(self, part: Part, step: Step) -> Scalar:
        """Return ``lr lambda``."""
        return part.lr * (self.weight_decay * part.strength)

    def lend(self, convention: str | None, part: Part, step: Step) -> Scalar | None:
        """Return lambda for a kernel that decouples."""
        return self.weight_decay * part.strength if convention == "decoupled" else None
