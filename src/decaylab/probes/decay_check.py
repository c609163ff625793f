"""Comparison of the decay that is counted with what the weights really lose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.conventions import step_decay
from decaylab.decay.attachment import Handle, attached_to
from decaylab.decay.effect import Effect
from decaylab.probes.active_decay import Decay, Scalar
from decaylab.probes.optimizer_rates import GroupRates, MeasuredDecay
from decaylab.probes.storage import LOW, share_kept
from decaylab.tensors.reduce import accurate, tensor_norms

# A statement counts as wrong, and storage as losing decay, from these on; rounding alone moves both by less.
_WRONG, _LOST = 0.05, 0.5
_CHANGED = 1.5  # factor of lr * lambda after which storage is asked again


@dataclass(frozen=True)
class Discrepancy:
    """Decay that was counted and is not what the weights lose.

    Attributes:
        stated: Share of the weight (or coefficient in the gradient) that a step should take.
        found: What it takes.
        dtype: Type of the weights where the difference is lost to rounding; empty where the statement is wrong.
    """

    stated: float
    found: float
    dtype: str = ""


class DecayCheck:
    """Measures what rules take that state nothing, and holds what others state to the weights.

    Rules that state no share are measured on every recorded step. Those that state one, and decay of weights in low
    precision, are measured on the records 0, 1, 2, 4, 8 and so on. Weights, gradients and optimizer are only read.

    Args:
        optimizer: The optimizer.

    Attributes:
        discrepancies: By key of `Decay`, what was found last.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._records = 0
        self._kept: dict[str, float] = {}  # share of the counted decay that is kept, by key
        self._asked: dict[str, float] = {}  # lr * lambda when storage was asked last
        self._misstated: set[str] = set()
        self.discrepancies: dict[str, Discrepancy] = {}

    def corrected(self, groups: list[GroupRates]) -> list[GroupRates]:
        """Return the rates with what was found: measured where a statement was wrong, less where decay is lost."""
        if not self._kept and not self._misstated:
            return groups
        return [replace(group, decays=tuple(map(self._corrected, group.decays))) for group in groups]

    def _corrected(self, decay: Decay) -> Decay:
        if decay.key in self._misstated:
            return replace(decay, decay=math.nan, coupled=0.0, shrink=math.nan, knowledge="measured")
        kept = self._kept.get(decay.key)
        if kept is None:
            return decay
        return replace(decay, decay=decay.decay * kept, shrink=decay.shrink * kept)

    def before(self, groups: Sequence[GroupRates]) -> None:
        """Ask the rules to measure themselves in the recorded step that comes."""
        sparse = self._records & (self._records - 1) == 0  # 0, 1, 2, 4, 8, ...
        measured = {d.key.partition("/")[2] for group in groups for d in group.decays if d.knowledge == "measured"}
        for handle in attached_to(self._optimizer):
            if sparse or handle.slot in measured:
                handle.measure_next_step()

    def after(self, groups: list[GroupRates], parameters: Sequence[Tensor], verify: bool) -> list[GroupRates]:
        """Compare, right after the recorded step.

        Args:
            groups: The rates that were read before the step.
            parameters: The parameters that are watched.
            verify: Whether statements and storage are checked; waits for the device.

        Returns:
            The rates, corrected by what was found.
        """
        if verify and self._records & (self._records - 1) == 0:
            for index, group in enumerate(groups):
                for decay in group.decays:
                    if decay.target == "zero" and decay.knowledge in ("stated", "unknown"):
                        self._verify(index, decay, parameters)
        self._records += 1
        return self.corrected(groups)

    def _verify(self, index: int, decay: Decay, parameters: Sequence[Tensor]) -> None:
        group = self._optimizer.param_groups[index]
        members = {id(p) for p in group["params"]}
        mine = [
            p for p in parameters
            if id(p) in members and p.grad is not None and (decay.covers is None or decay.covers(p))
        ]  # fmt: skip
        effect = self._effect(decay.key)
        if effect is not None and self._hold_to(effect, decay, mine):
            return
        low = [p for p in mine if p.dtype in LOW]
        if low:
            self._ask_storage(group, decay, [p for p in low if p.dtype == low[0].dtype])

    def _hold_to(self, effect: Effect, decay: Decay, mine: list[Tensor]) -> bool:
        """Compare a rule's statement with its effect; False where a kernel has acted for it."""
        seen = [p for p in mine if p in effect.shares or p in effect.coefficients]
        if not seen:
            return False
        through_gradient = seen[0] in effect.coefficients
        found = effect.coefficients if through_gradient else effect.shares
        stated = _number(decay.coupled if through_gradient else decay.decay)
        weights = tensor_norms([p.detach() for p in seen]).square().float()
        values = torch.stack([found[p].float().to(weights.device) for p in seen])
        mean = _number((values * weights).sum() / weights.sum()) if _number(weights.sum()) else 0.0
        if math.isnan(stated) or abs(mean - stated) <= _WRONG * abs(stated) or mean == stated == 0:
            self._forget(decay.key)
            return True
        low = {p.dtype for p in seen} & set(LOW)
        self.discrepancies[decay.key] = Discrepancy(stated, mean, _named(seen[0].dtype) if low else "")
        self._misstated.add(decay.key)
        return True

    def _ask_storage(self, group: Mapping[str, Any], decay: Decay, low: list[Tensor]) -> None:
        lr, share, coupled = _number(group["lr"]), _number(decay.decay), _number(decay.coupled)
        coefficient = coupled if coupled else share / lr if lr else 0.0
        if not coefficient or math.isnan(coefficient) or math.isnan(lr):
            return
        last = self._asked.get(decay.key, 0.0)
        if last and 1 / _CHANGED < lr * coefficient / last < _CHANGED:
            return
        self._asked[decay.key] = lr * coefficient
        kept = share_kept(self._optimizer, group, low, lr=lr, weight_decay=coefficient, coupled=bool(coupled))
        if kept is None or kept >= _LOST:
            self._forget(decay.key)
            return
        kept = max(kept, 0.0)
        self._kept[decay.key] = kept
        stated = lr * coefficient if coupled else share
        self.discrepancies[decay.key] = Discrepancy(stated, kept * stated, _named(low[0].dtype))

    def _forget(self, key: str) -> None:
        self._kept.pop(key, None)
        self.discrepancies.pop(key, None)

    def measured(
        self, groups: Sequence[GroupRates], parameters: Sequence[Tensor], families: Sequence[str | None]
    ) -> MeasuredDecay | None:
        """Return what rules without a stated share took in the recorded step; None where there are none.

        Args:
            groups: The rates.
            parameters: The parameters that are watched.
            families: Method of each group's updates, see `DecayReader.family`.
        """
        wanted = {
            d.key for group in groups for d in group.decays if d.knowledge == "measured" and d.target == "zero"
        }  # fmt: skip
        if not wanted:
            return None
        device = parameters[0].device
        kind = accurate(device)
        zero = torch.zeros((), dtype=kind, device=device)
        place = {id(p): i for i, group in enumerate(self._optimizer.param_groups) for p in group["params"]}
        shares, coefficients, long_run, known = [], [], [], []
        effects = {key: self._effect(key) for key in wanted}
        for p in parameters:
            index = place.get(id(p), -1)
            share, coefficient, seen = zero, zero, False
            for key, effect in effects.items():
                if effect is None or int(key.partition("/")[0]) != index:
                    continue
                seen = seen or p in effect.shares or p in effect.coefficients
                share = share + effect.shares.get(p, zero).to(zero)
                coefficient = coefficient + effect.coefficients.get(p, zero).to(zero)
            through = any(effect is not None and p in effect.coefficients for effect in effects.values())
            if through and families[index] == "sgd":
                group = self._optimizer.param_groups[index]
                momentum, dampening = group.get("momentum", 0.0), group.get("dampening", 0.0)
                total = share + step_decay.coupled(groups[index].lr, coefficient, momentum, dampening)
            else:
                total = share
            shares.append(share)
            coefficients.append(coefficient)
            long_run.append(total)
            known.append(seen and not (through and families[index] != "sgd"))
        return MeasuredDecay(torch.stack(shares), torch.stack(coefficients), torch.stack(long_run), tuple(known))

    def _effect(self, key: str) -> Effect | None:
        slot = key.partition("/")[2]
        found: list[Handle] = [handle for handle in attached_to(self._optimizer) if slot and handle.slot == slot]
        return found[0].effect if found else None


def _number(value: Scalar) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else float(value)


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
