"""What decays each parameter of some optimizers: read from coefficients, from attached rules, and from a trial step.

The handles of attached rules hang on the optimizer. They are read there by their attributes: this room does not import
the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from decaylab.params.inner_optimizer import inner_optimizer
from decaylab.params.marks import group_mark, marked
from decaylab.params.trial_step import weight_decay_acts


@dataclass(frozen=True)
class Acting:
    """What one optimizer does to one parameter.

    Attributes:
        optimizer: The optimizer's class.
        decays: Whether it takes weight away.
        coefficient: By which lambda; None where that is not one number.
        by: Who does: the optimizer's class, or the class of an attached rule; empty for nobody.
        remark: What there is to say of it.
        warns: Whether the remark is a warning.
    """

    optimizer: str
    decays: bool
    coefficient: float | None
    by: str
    remark: str = ""
    warns: bool = False


def optimizers_of(optimizer: Any) -> list[Optimizer]:
    """Return torch optimizers from one, a wrapper around one, or a list, tuple or mapping of them; None gives none."""
    if optimizer is None:
        return []
    if isinstance(optimizer, Mapping):
        optimizer = list(optimizer.values())
    given = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
    return list({id(inner): inner for inner in map(inner_optimizer, given)}.values())


def acting_decay(optimizers: Iterable[Optimizer]) -> dict[int, list[Acting]]:
    """Map the id of every parameter to what each optimizer that holds it does to it."""
    found: dict[int, list[Acting]] = {}
    for optimizer in optimizers:
        handles = tuple(optimizer.__dict__.get("_decaylab_handles", ()))
        for group in optimizer.param_groups:
            own, remark = _own_decay(optimizer, group)
            rules = [
                {id(p) for p in group["params"] if handle.covers(group, p)} if handle.rule.decays else set()
                for handle in handles
            ]
            whole = all(any(id(p) in covered for covered in rules) for p in group["params"])
            for p in group["params"]:
                acting = [handle for handle in handles if handle.covers(group, p)]
                ruling = next((handle.rule for handle in acting if handle.rule.decays), None)
                others = [type(handle.rule).__name__ for handle in acting if not handle.rule.decays]
                name = type(optimizer).__name__
                if ruling is not None:
                    entry = _by_rule(name, ruling, own, whole)
                else:
                    entry = _by_optimizer(name, group, p, own, remark)
                if others:
                    entry = _with_remark(entry, f"{' and '.join(others)} holds its norm")
                found.setdefault(id(p), []).append(entry)
    return found


def _own_decay(optimizer: Optimizer, group: Mapping[str, Any]) -> tuple[float, str]:
    """The coefficient with which a group decays by itself, and a remark where its number does something else."""
    number = group.get("weight_decay")
    own = float(number) if isinstance(number, (int, float, Tensor)) else 0.0
    acts = weight_decay_acts(optimizer, group)
    if acts is False and own:
        return 0.0, f"WARNING: the group's weight_decay={own:g} has no effect in {type(optimizer).__name__}"
    if acts and not own:
        return float("nan"), f"WARNING: {type(optimizer).__name__} shrinks it without a coefficient in its group"
    return own, ""


def _by_rule(name: str, rule: Any, own: float, whole: bool) -> Acting:
    coefficient, by = getattr(rule, "weight_decay", None), type(rule).__name__
    if own and not whole:  # the rule stands back, see decaylab.decay
        text = f"WARNING: {name} decays the group by {own:g}, so {by} stands back there"
        return Acting(name, True, own, name, text, True)
    remark = f"by {by}" + (f"; the group's own weight_decay={own:g} is left out while it acts" if own else "")
    number = float(coefficient) if isinstance(coefficient, (int, float)) else None
    return Acting(name, number != 0, number, by, remark)


def _by_optimizer(name: str, group: Mapping[str, Any], param: Tensor, own: float, remark: str) -> Acting:
    mark = group_mark(group)
    if mark is None:
        mark = marked(param)
    decays, unknown = own != 0, own != own
    if decays and mark is False and not remark:
        remark = f"WARNING: marked not to decay, but its group's weight_decay={own:g} acts"
    elif not decays and mark is True and not remark:
        remark = "WARNING: left to a rule (the group's own weight_decay is 0), and none is attached"
    coefficient = None if unknown else own
    return Acting(name, decays, coefficient, name if decays else "", remark, remark.startswith("WARNING"))


def _with_remark(entry: Acting, remark: str) -> Acting:
    text = "; ".join(part for part in (entry.remark, remark) if part)
    return Acting(entry.optimizer, entry.decays, entry.coefficient, entry.by, text, entry.warns)
