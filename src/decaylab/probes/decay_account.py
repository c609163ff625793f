"""Account of everything that decays the parameters of a training, for the words of a summary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from decaylab.decay.attachment import attached_to
from decaylab.probes.active_decay import Decay
from decaylab.probes.cumulative_decay import Elapsed
from decaylab.probes.decay_check import DecayCheck
from decaylab.probes.optimizer_rates import GroupRates


@dataclass(frozen=True, kw_only=True)
class DecaySource:
    """One thing that decays parameters: the optimizer's own coefficient or an attached rule, over all param groups.

    Attributes:
        label: What it is called.
        target: What it pulls to: ``"zero"``, an ``"anchor"`` or a ``"norm"``.
        knowledge: ``"stated"``, ``"measured"``, ``"unknown"``, or ``"none"`` where the coefficient does nothing.
        reason: Why its share is unknown.
        parameters: How many of the watched parameters it acts on.
        moved: How many of these a step has moved.
        stated: Share that a step should take, where that is not what the weights lose; NaN where it is.
        found: What it takes instead.
        dtype: Type of the weights where the difference is lost to rounding.
    """

    label: str
    target: str
    knowledge: str
    reason: str = ""
    parameters: int = 0
    moved: int = 0
    stated: float = math.nan
    found: float = math.nan
    dtype: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DecaySource:
        """Read what `to_dict` gave."""
        return cls(**values)


def sources(
    optimizer: Optimizer,
    groups: Sequence[GroupRates],
    parameters: Sequence[Tensor],
    elapsed: Elapsed,
    check: DecayCheck,
) -> list[DecaySource]:
    """Put together what decays, as it was in the last step.

    Args:
        optimizer: The optimizer.
        groups: The rates of its groups.
        parameters: The parameters that are watched, in the order of ``elapsed``.
        elapsed: Which of them steps have moved.
        check: What the weights lost of what was counted.

    Returns:
        One source for each coefficient or rule, those that act on nothing among them.
    """
    ever = elapsed.ever
    found: dict[str, DecaySource] = {}
    for index, (rates, group) in enumerate(zip(groups, optimizer.param_groups, strict=False)):
        members = {id(p) for p in group["params"]}
        for decay in rates.decays:
            mine = [
                i for i, p in enumerate(parameters)
                if id(p) in members and (decay.covers is None or decay.covers(p))
            ]  # fmt: skip
            gap = check.discrepancies.get(decay.key)
            source = DecaySource(
                label=decay.label, target=decay.target, knowledge=decay.knowledge, reason=decay.reason,
                parameters=len(mine), moved=sum(ever[i] for i in mine),
                stated=gap.stated if gap else math.nan, found=gap.found if gap else math.nan,
                dtype=gap.dtype if gap else "",
            )  # fmt: skip
            name = _identity(index, decay)
            found[name] = _joined(found[name], source) if name in found else source
    listed = {name.partition(" ")[0] for name in found}
    for handle in attached_to(optimizer):  # a rule on no group at all, such as one whose parameters have left
        if handle.slot not in listed:
            found[handle.slot] = DecaySource(label=handle.label, target="zero", knowledge="stated")
    return list(found.values())


def _identity(index: int, decay: Decay) -> str:
    return f"{decay.key.partition('/')[2]} {decay.label} {decay.knowledge} {decay.target}"


def _joined(one: DecaySource, other: DecaySource) -> DecaySource:
    gap = one if not math.isnan(one.stated) else other
    return DecaySource(
        label=one.label, target=one.target, knowledge=one.knowledge, reason=one.reason or other.reason,
        parameters=one.parameters + other.parameters, moved=one.moved + other.moved,
        stated=gap.stated, found=gap.found, dtype=gap.dtype,
    )  # fmt: skip
