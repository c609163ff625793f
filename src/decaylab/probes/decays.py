"""What takes weight away in a step: the optimizer's own ``weight_decay``, and decay rules attached to it.

The handles of attached rules hang on the optimizer. They are read there by their attributes: this room does not import
the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
            which divides it by the size of the gradient, and for rules whose share is not one number.
        covers: Which parameters of the group it decays; None for all.
    """

    key: str
    decay: Scalar
    coupled: Scalar
    shrink: Scalar
    covers: Callable[[Tensor], bool] | None = None


def families(optimizer: Optimizer) -> set[str]:
    """Return the names of an optimizer's class and of those that it derives from."""
    return {cls.__name__ for cls in type(optimizer).__mro__}


def decays_of(optimizer: Optimizer, index: int) -> Iterator[Decay]:
    """Give everything that decays parameters of a group in the step that is about to be taken.

    Args:
        optimizer: The optimizer.
        index: Number of the group.

    Yields:
        The group's own decay if it is not 0, and that of each attached rule that acts on the group.
    """
    group = optimizer.param_groups[index]
    handles = optimizer.__dict__.get("_decaylab_handles", [])
    own = group.get("weight_decay", 0.0)
    # A rule may lend its coefficient to the group for the time of a step: it is the rule's then, counted below.
    lent = any(lent is group for handle in handles for lent in handle._lent)
    if (isinstance(own, Tensor) or own) and not lent:
        if _is_decoupled(families(optimizer), group):
            yield Decay(str(index), group["lr"] * own, 0.0, group["lr"] * own)
        else:
            yield Decay(str(index), 0.0, own, _coupled_shrink(optimizer, group, own))
    for handle in handles:
        if handle.rule.decays and index in handle._max_lr:
            yield _of_rule(handle, optimizer, index, group)


def _of_rule(handle: Any, optimizer: Optimizer, index: int, group: dict[str, Any]) -> Decay:
    rule, part = handle.rule, handle._part(index, group)
    key = f"{index}/{handle.slot}"

    def covers(p: Tensor) -> bool:
        return bool(handle.covers(group, p))

    if rule.edits_gradients and hasattr(rule, "weight_decay"):
        coefficient = rule.weight_decay * part.strength
        return Decay(key, 0.0, coefficient, _coupled_shrink(optimizer, group, coefficient), covers)
    try:
        share = rule.shrink(part, None)
    except AttributeError:  # no share at all, or one that is computed from the tensors of the step
        share = math.nan
    if isinstance(share, Tensor) and share.numel() != 1:
        share = math.nan
    return Decay(key, share, 0.0, share, covers)


def _coupled_shrink(optimizer: Optimizer, group: Mapping[str, Any], coefficient: Scalar) -> Scalar:
    if not families(optimizer) & SGD_FAMILY:
        return math.nan
    momentum = group.get("momentum", 0.0)
    amplified: float = (1 - group.get("dampening", 0.0)) / (1 - momentum) if momentum else 1.0
    rate: Scalar = group["lr"] * coefficient * amplified
    return rate


def _is_decoupled(names: set[str], group: Mapping[str, Any]) -> bool:
    flag = group.get("decoupled_weight_decay")
    if flag is not None:
        return bool(flag)
    return bool(names & {"AdamW", "SGDW"}) or not names & _COUPLED  # AdamW of torch 2.6 has no flag
