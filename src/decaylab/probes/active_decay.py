"""What takes weight away in a step: the optimizer's own ``weight_decay``, and decay rules attached to it.

The handles of attached rules hang on the optimizer. They are read there by their attributes: this room does not import
the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from torch import Tensor
from torch.optim import Optimizer

Scalar: TypeAlias = float | Tensor

SGD_FAMILY = {"SGD", "SGDW"}
# Classes that add weight_decay to the gradient, unless a flag of the group says otherwise.
_COUPLED = {"SGD", "Adam", "NAdam", "RAdam", "Adagrad", "RMSprop", "Adadelta", "Adamax", "Rprop", "ASGD"}


@dataclass(frozen=True)
class Decay:
    """One thing that decays parameters of a param group: the group's own ``weight_decay`` or an attached rule.

    Attributes:
        key: A name that stays the same along training.
        decay: The share d of the old weight that a step takes away beside the update, ``w <- (1 - d) w``; 0 for decay
            that goes through the gradient.
        coupled: The coefficient of decay that goes through the gradient, ``g <- g + coupled * w``; 0 for other decay.
        shrink: The share c of the weight that decay takes away per step in the long run. The same as ``decay`` where
            that is not 0. For coupled decay with SGD the momentum buffer amplifies it:
            ``c = lr * coupled * (1 - dampening) / (1 - momentum)``. NaN for coupled decay with an adaptive optimizer,
            which divides it by the size of the gradient, and for rules whose share is not one number known before the
            step.
        covers: Which parameters of the group it decays; None for all.
    """

    key: str
    decay: Scalar
    coupled: Scalar
    shrink: Scalar
    covers: Callable[[Tensor], bool] | None = None


@lru_cache
def _names(kind: type) -> frozenset[str]:
    return frozenset(cls.__name__ for cls in kind.__mro__)


def families(optimizer: Optimizer) -> frozenset[str]:
    """Return the names of an optimizer's class and of those that it derives from."""
    kind: Any = type(optimizer)
    return _names(kind)


def decays_of(optimizer: Optimizer, index: int) -> Iterator[Decay]:
    """Give everything that decays parameters of a group in the step that is about to be taken.

    Args:
        optimizer: The optimizer.
        index: Number of the group.

    Yields:
        The group's own decay if it is not 0, and that of each attached rule that acts on the group.
    """
    group = optimizer.param_groups[index]
    acting = [handle for handle in optimizer.__dict__.get("_decaylab_handles", ()) if _acts_on(handle, group)]
    for handle in acting:
        if handle.rule.decays:
            yield _of_rule(handle, optimizer, index, group)
    own = group.get("weight_decay", 0.0)
    # Rules act on groups without decay of their own. A number that is there nevertheless is one that a rule has lent to
    # the kernel for the time of this step, and is counted already.
    if acting or not (isinstance(own, Tensor) or own):
        return
    if _is_decoupled(families(optimizer), group):
        yield Decay(str(index), group["lr"] * own, 0.0, group["lr"] * own)
    else:
        yield Decay(str(index), 0.0, own, _coupled_shrink(optimizer, group, own))


def _acts_on(handle: Any, group: dict[str, Any]) -> bool:
    return any(handle.covers(group, p) for p in group["params"])


def _of_rule(handle: Any, optimizer: Optimizer, index: int, group: dict[str, Any]) -> Decay:
    rule, part = handle.rule, handle.part(index, group)
    key = f"{index}/{handle.slot}"

    def covers(p: Tensor) -> bool:
        return bool(handle.covers(group, p))

    name = type(rule).__name__
    if name == "L2":
        coefficient = rule.weight_decay * part.strength
        return Decay(key, 0.0, coefficient, _coupled_shrink(optimizer, group, coefficient), covers)
    share: Scalar = math.nan
    # Scheduled decay on Adam divides by the size of the gradients, known only after two passes over them.
    if hasattr(rule, "shrink") and not (name == "Scheduled" and "betas" in group):
        share = rule.shrink(part, None)
    return Decay(key, share, 0.0, share, covers)


def _coupled_shrink(optimizer: Optimizer, group: Mapping[str, Any], coefficient: Scalar) -> Scalar:
    if not families(optimizer) & SGD_FAMILY:
        return math.nan
    momentum = group.get("momentum", 0.0)
    amplified: float = (1 - group.get("dampening", 0.0)) / (1 - momentum) if momentum else 1.0
    rate: Scalar = group["lr"] * coefficient * amplified
    return rate


def _is_decoupled(names: frozenset[str], group: Mapping[str, Any]) -> bool:
    flag = group.get("decoupled_weight_decay")
    if flag is not None:
        return bool(flag)
    return bool(names & {"AdamW", "SGDW"}) or not names & _COUPLED  # AdamW of torch 2.6 has no flag
