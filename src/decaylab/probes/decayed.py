"""Norm, effective learning rate and rotation of the parameters that decay, and of these alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from decaylab.probes.context import Context, Measurement
from decaylab.probes.rotation import angles


@dataclass(frozen=True)
class Decayed:
    """The state of the parameters that something pulls to zero, at whatever rate, and that a step has moved.

    Where nothing is pulled to zero, of those whose norm a rule holds or that are pulled to an anchor. Roles mix them
    with others (a param group without decay, a rule on some layers); these keys do not:

    - ``decayed/norm``: ``|w1|``, Euclidean over all entries of those parameters, after the step;
    - ``decayed/effective_lr``: ``lr / ((1 - lr wd) |w1|)`` on them, see `EffectiveLearningRate`;
    - ``decayed/angular``: the angle in radians by which the step turned them, see `Rotation`.

    In total and by role. Nothing where nothing decays.
    """

    name: str = "decayed"
    needs: frozenset[str] = frozenset({"previous", "optimizer"})

    def measure(self, context: Context) -> Measurement:
        """Return the norm, the effective learning rate and the angle; see the class for the keys."""
        rates = context.rates
        if rates is None or not any(rates.covered):
            return {}
        directional = rates.lr / (1 - rates.decay.nan_to_num(0.0) - rates.lr * rates.coupled)
        squares = context.weight_norms.square()
        moved = squares * (rates.lr != 0)
        columns = [squares, moved, moved * directional.square()]
        n0, step = context.previous_norms, context.update_norms
        if n0 is not None and step is not None:
            turned = torch.where(
                n0 * context.weight_norms > 0, n0.square() * angles(n0, context.weight_norms, step).square(), 0.0
            )
            columns += [n0.square(), turned]
        sums = context.sums(torch.stack(columns, dim=1), rates.covered)
        total, moving, directed, *rotation = sums.values.unbind(dim=1)
        out: Measurement = dict(sums.named("decayed/norm", total.sqrt()))
        rate = torch.where(moving > 0, directed.sqrt() / torch.where(moving > 0, moving, 1.0), 0.0)
        out |= sums.named("decayed/effective_lr", rate)
        if rotation:
            before, turning = rotation
            out |= sums.named("decayed/angular", (turning / before).sqrt())
        return out
