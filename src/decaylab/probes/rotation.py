"""How far does a step turn the weights, and how much of it is decay?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from decaylab.probes.context import Context, Measurement


@dataclass(frozen=True)
class Rotation:
    """Relative and angular size of an update, and the angle at which decay and updates are in balance.

    Per parameter tensor, with old and new weights ``w0``, ``w1`` and ``D = w1 - w0`` (decay included):

    - ``update/relative``: ``|D| / |w0|``;
    - ``update/angular``: the angle between ``w0`` and ``w1`` in radians,
      ``2 asin(sqrt((|D|^2 - (|w1| - |w0|)^2) / (|w0| |w1|)) / 2)``, exact and free of cancellation for small angles;
    - ``update/angular_predicted``: ``sqrt(2 c r)``, the angle in rotational equilibrium (Kosson et al. 2023), where the
      growth of the norm by updates at right angles to the weights equals what decay takes away;
    - ``update/angular_ratio``: angle over predicted angle on the same parameters: 1 in equilibrium, below 1 while norms
      still fall (weights larger than in equilibrium), above 1 while they still grow.

    ``c`` is the share of the weight that decay takes away per step (``lr wd`` decoupled, ``lr wd / (1 - momentum)`` for
    L2 with SGD) and ``r`` the squared length of an update over the variance that it adds in the long run:
    ``(1 - b) / (1 + b)`` for AdamW (b is beta1) and SGD (b is the momentum), and for Lion
    ``pi/2 ((1-b1)^2 + b1^2 (1-b2)/(1+b2))``. So AdamW turns by ``sqrt(2 lr wd (1-b1)/(1+b1))`` and SGD with L2 by
    ``sqrt(2 lr wd / (1+momentum))``. The prediction assumes weights of many entries, updates at right angles to the
    weights that are uncorrelated beyond momentum, and momentum that forgets much faster than decay does (with Lion's
    ``b2 = 0.99`` and a timescale of 200 steps the true angle is 17 % larger). It is given for parameters that decay at
    a known rate only, in steps that move them.

    Values of a role and of the whole model are root mean squares over tensors weighted by ``|w0|^2``, so that they say
    how far all directions turn together.
    """

    name: str = "rotation"
    needs: frozenset[str] = frozenset({"previous", "optimizer"})

    def measure(self, context: Context) -> Measurement:
        """Return the sizes and angles; see the class for the keys. Nothing without a step."""
        n0, n1, step = context.previous_norms, context.weight_norms, context.update_norms
        if n0 is None or step is None:
            return {}
        squares = n0.square()
        # A tensor of zeros has no direction, and no weight in the mean.
        turned = torch.where(n0 * n1 > 0, squares * angles(n0, n1, step).square(), 0.0)
        sums = context.sums(torch.stack([squares, turned, step.square()], dim=1))
        total, turning, moving = sums.values.unbind(dim=1)
        out: Measurement = {}
        out |= sums.named("update/relative", (moving / total).sqrt())
        out |= sums.named("update/angular", (turning / total).sqrt())
        rates = context.rates
        if rates is None or not any(rates.predictable):
            return out
        expected = torch.where(n0 > 0, squares * 2 * rates.shrink * rates.rotation_ratio, 0.0)
        sums = context.sums(torch.stack([squares, turned, expected], dim=1), rates.predictable)
        total, turning, expecting = sums.values.unbind(dim=1)
        out |= sums.named("update/angular_predicted", (expecting / total).sqrt())
        out |= sums.named("update/angular_ratio", (turning / expecting).sqrt())
        return out


def angles(old_norms: Tensor, new_norms: Tensor, update_norms: Tensor) -> Tensor:
    """Angle between old and new weights from three norms, in radians, shape (P,)."""
    chord = (update_norms.square() - (new_norms - old_norms).square()) / (old_norms * new_norms)
    return 2 * torch.asin(chord.clamp(0.0, 4.0).sqrt() / 2)


@dataclass(frozen=True)
class DecayShare:
    """Which part of the update is weight decay, between 0 and 1.

    ``update/decay_share`` is ``|a| / (|a| + |b|)``, a the decay part and b the rest of a step. Decoupled decay that
    takes away the share d: ``a = d w0`` and ``b = D + d w0``, exactly, from the measured update ``D``. Decay through
    the gradient (L2): ``a = lr wd w0`` and ``b = lr g``, the two parts of the gradient that enters momentum and
    moments; for plain SGD these are the parts of the update.

    In total over all parameters that decay and that this step moves, and by role. In rotational equilibrium of AdamW
    it is near ``sqrt(c) / (sqrt(c) + sqrt(2 r))``.
    """

    name: str = "decay_share"
    needs: frozenset[str] = frozenset({"gradients", "previous", "optimizer"})

    def measure(self, context: Context) -> Measurement:
        """Return the share; nothing without a step or without decay."""
        n0, n1, step, rates = context.previous_norms, context.weight_norms, context.update_norms, context.rates
        if n0 is None or step is None or rates is None or not any(rates.sharing):
            return {}
        d = rates.decay
        # |D + d w0|^2 with <D, w0> = (|w1|^2 - |w0|^2 - |D|^2) / 2
        rest = step.square() * (1 - d) + d * (n1.square() - n0.square()) + (d * n0).square()
        gradients = context.gradient_norms if context.gradient_norms is not None else torch.zeros_like(n0)
        through_gradient = rates.coupled > 0
        part = torch.where(through_gradient, rates.lr * rates.coupled, d) * n0
        rest = torch.where(through_gradient, rates.lr * gradients, rest.clamp_min(0.0).sqrt())
        sums = context.sums(torch.stack([part.square(), rest.square()], dim=1), rates.sharing)
        a, b = sums.values.sqrt().unbind(dim=1)
        return dict(sums.named("update/decay_share", a / (a + b)))
