"""How large is the learning rate compared with the weights that it moves?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from decaylab.probes.context import Context, Measurement
from decaylab.tensors.reduce import stack_scalars, tensor_norms


@dataclass(frozen=True)
class EffectiveLearningRate:
    """Learning rate over weight norm, in the three forms in use.

    For weights of norm ``|w|`` trained at ``lr`` with decay ``wd``:

    - ``effective_lr`` is ``lr / ((1 - lr wd) |w|)``: the learning rate of the direction ``w / |w|`` under sign descent
      with decay (D'Angelo et al. 2024, appendix D.1 and Fig. 6);
    - ``effective_lr/adaptive`` is ``lr / |w|``: for optimizers whose update does not depend on the size of the gradient
      (Adam, Lion, sign descent), so that the direction turns by this times the length of the update;
    - ``effective_lr/plain`` is ``lr / |w|^2``: for plain gradient descent on scale-invariant weights, whose gradient
      itself shrinks as ``1 / |w|`` (van Laarhoven 2017; Hoffer et al. 2018).

    Each also by role (``effective_lr/matrix``, ``effective_lr/adaptive/matrix``, ...). ``|w|`` is the norm of all
    parameters in question together. Where groups differ in ``a_i = lr_i / (1 - lr_i wd_i)``, the total is
    ``sqrt(sum a_i^2 |w_i|^2) / |w|^2``, each rate weighted by the norm it acts on; it is ``a / |w|`` where they agree.
    Weights that no optimizer holds are left out, and NaN by themselves. The weights are those after the step, ``lr``
    that of the step.

    Units: update per weight; ``plain`` per squared weight. 0 at steps whose learning rate is 0, such as the first of a
    warm-up; infinite or NaN for weights that are all zero.
    """

    name: str = "effective_lr"
    needs: frozenset[str] = frozenset({"optimizer"})

    def measure(self, context: Context) -> Measurement:
        """Return the effective learning rates; see the class for the keys."""
        rates = context.rates
        if rates is None:
            return {}
        moved = (rates.lr != 0).to(context.weight_norms.dtype)
        squares = context.weight_norms.square() * moved
        directional = rates.lr / (1 - rates.decay.nan_to_num(0.0) - rates.lr * rates.coupled)
        held = torch.tensor(rates.held).to(moved)
        columns = [squares, squares * rates.lr.square(), squares * directional.square(), moved, held]
        sums = context.sums(torch.stack(columns, dim=1))
        total, weighted, directed, movers, holders = sums.values.unbind(dim=1)
        found = {
            "effective_lr": directed.sqrt() / total,
            "effective_lr/adaptive": weighted.sqrt() / total,
            "effective_lr/plain": (weighted / total).sqrt() / total,  # the rate where all agree, over the squared norm
        }
        still = torch.where(holders > 0, 0.0, torch.nan)
        named = [sums.named(key, torch.where(movers > 0, value, still)) for key, value in found.items()]
        return {key: value for part in named for key, value in part.items()}


@dataclass(frozen=True)
class AdamRate:
    """Adam's learning rate of single coordinates, ``lr / (sqrt(v_hat_i) + eps)``, with bias correction.

    ``v_hat = v / (1 - beta2^t)``; with ``amsgrad`` v is the maximum so far. ``adam_rate`` is the root-mean-square form
    ``lr / (sqrt(mean v_hat) + eps)``, which rare large gradients lower, also by role (``adam_rate/matrix``);
    ``adam_rate/p10``, ``/p50`` and ``/p90`` are quantiles over an evenly spaced sample of coordinates of the whole
    model. Unit: weight per gradient.

    Nothing is returned before the first step or for optimizers that keep no ``exp_avg_sq``.

    Attributes:
        sample: Largest number of coordinates in the quantiles.
    """

    name: str = "adam_rate"
    needs: frozenset[str] = frozenset({"optimizer"})
    sample: int = 100_000

    def measure(self, context: Context) -> Measurement:
        """Return the rates; see the class for the keys."""
        if context.optimizer is None or context.rates is None:
            return {}
        moments, steps, constants, places = [], [], [], []
        settings = {id(p): group for group in context.optimizer.param_groups for p in group["params"]}
        originals = dict(context.model.named_parameters())
        for i, name in enumerate(context.names):
            parameter = originals.get(name)
            state = context.optimizer.state.get(parameter, {}) if parameter is not None else {}
            if "exp_avg_sq" not in state or "betas" not in settings.get(id(parameter), {}):
                continue
            group = settings[id(parameter)]
            moments.append(state.get("max_exp_avg_sq", state["exp_avg_sq"]))
            steps.append(state["step"])
            constants.append((float(group["betas"][1]), float(group.get("eps", 0.0)), float(moments[-1].numel())))
            places.append(i)
        if not moments:
            return {}
        norms = tensor_norms([m.sqrt() for m in moments]).to(context.device)
        beta2, eps, sizes = torch.tensor(constants, dtype=norms.dtype).to(context.device).unbind(1)
        at = torch.tensor(places, device=context.device)
        age = stack_scalars([torch.as_tensor(s) for s in steps]).to(context.device, norms.dtype)
        correction, lr = 1 - beta2**age, context.rates.lr[at]
        rows = torch.stack([norms.square() / correction, sizes, lr * sizes, eps * sizes], dim=1)
        table = torch.zeros(len(context.names), 4, dtype=norms.dtype, device=context.device).index_copy(0, at, rows)
        sums = context.sums(table, [i in set(places) for i in range(len(context.names))])
        squares, count, rates, offsets = sums.values.unbind(dim=1)
        found = rates / count / ((squares / count).sqrt() + offsets / count)
        return {**sums.named("adam_rate", found), **self._quantiles(moments, correction, lr, eps)}

    def _quantiles(self, moments: list[Tensor], correction: Tensor, lr: Tensor, eps: Tensor) -> dict[str, Tensor]:
        stride = max(1, -(-sum(m.numel() for m in moments) // self.sample))
        samples = []
        for i, moment in enumerate(moments):
            local = moment.to_local() if hasattr(moment, "to_local") else moment  # this process's share will do
            v = local.reshape(-1)[::stride].to(lr.device, lr.dtype)
            samples.append(lr[i] / ((v / correction[i]).sqrt() + eps[i]))
        rates = torch.cat(samples).sort().values
        last = len(rates) - 1
        return {f"adam_rate/p{p}": rates[round(last * p / 100)] for p in (10, 50, 90)}
