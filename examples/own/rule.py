"""A decay rule of your own: half of AdamW's decay, and only on rows whose norm is above a bound.

decaylab train vision --epochs 2 --decay.rule examples/own/rule.py:AboveBound --decay.weight-decay 0.1 \
        --decay.options bound 0.5
decaylab rules examples/own/rule.py:AboveBound
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from decaylab.decay import DecayRule, Step


@dataclass(frozen=True)
class AboveBound(DecayRule):
    """Decay the rows of a weight whose norm is above a bound: w_i <- w_i (1 - lr lambda) where ||w_i|| > bound.

    Attributes:
        bound: Norm up to which a row is left alone.
    """

    bound: float = 1.0

    def before(self, step: Step) -> None:
        """Shrink the old weights; the optimizer's own update follows."""
        for part in step.parts:
            for weight in part.weights:
                rows = weight.view(len(weight), -1) if weight.ndim > 1 else weight.view(1, -1)
                large = torch.linalg.vector_norm(rows, dim=1, keepdim=True) > self.bound
                rows.mul_(torch.where(large, 1 - part.lr * self.weight_decay * part.strength, 1.0))
