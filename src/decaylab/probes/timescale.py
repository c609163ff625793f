"""How many steps does the training remember, and how often has decay renewed the weights?"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from decaylab.probes.context import Context, Measurement


@dataclass(frozen=True)
class Timescale:
    """The timescale of decay, ``1 / (lr wd)`` steps, and how many of them have passed.

    With decay the weights are an exponential moving average of updates, ``w_t = (1-c) w_{t-1} + c (-u_t/wd)``, whose
    window is ``1 / c`` steps (Wang and Aitchison 2024); c is the share that decay takes away per step, ``lr wd`` for
    decoupled decay and plain SGD, ``lr wd / (1 - momentum)`` for L2 with momentum.

    - ``timescale/steps``: ``1 / c`` at the learning rate of this step, in steps that move the parameter;
    - ``timescale/passed``: the sum of c over all steps so far that moved the parameter (optimizers leave those
      without a gradient alone). The initial weights are left with a share ``exp(-passed)``, squared norms approach
      their equilibrium as ``exp(-2 passed)``.

    In total and by role, over parameters that decay and have been moved by a step, weighted by their number of entries.
    Missing where nothing decays at a known rate, such as L2 with Adam.
    """

    name: str = "timescale"
    needs: frozenset[str] = frozenset({"optimizer"})

    def measure(self, context: Context) -> Measurement:
        """Return the timescale; see the class for the keys."""
        rates = context.rates
        if rates is None or not any(rates.decaying):
            return {}
        sizes = torch.tensor([float(p.numel()) for p in context.parameters.values()], dtype=rates.lr.dtype)
        sizes = sizes.to(rates.lr.device)
        sums = context.sums(torch.stack([sizes, sizes * rates.shrink, sizes * rates.passed], dim=1), rates.decaying)
        count, shrink, passed = sums.values.unbind(dim=1)
        return {**sums.named("timescale/steps", count / shrink), **sums.named("timescale/passed", passed / count)}
