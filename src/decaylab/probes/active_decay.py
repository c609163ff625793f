"""What takes weight away in a step: the optimizer's own coefficient, and the decay rules attached to it.

A rule states its terms, or what it does is measured. The convention of torch's own optimizers is known; that of every
other class is measured once on a private copy (`decaylab.conformance.instance`), never guessed from its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.conformance.instance import OwnDecay, own_decay
from decaylab.conventions import step_decay
from decaylab.conventions.step_decay import MEASURED, Target
from decaylab.decay.attachment import Handle, attached_to

Scalar: TypeAlias = float | Tensor
Knowledge = Literal["stated", "measured", "unknown", "none"]

_COUPLED = OwnDecay(kind="l2", meaning="l2")
_DECOUPLED = OwnDecay(kind="before", meaning="torch")
_NO_COEFFICIENT = OwnDecay(kind="none", meaning="none", key="")
# torch's own classes, held to their steps by a test. A subclass may do something else: it is measured.
_TORCH: dict[type[Optimizer], OwnDecay] = {
    torch.optim.SGD: replace(_COUPLED, family="sgd"),
    torch.optim.ASGD: _COUPLED,
    torch.optim.Adam: replace(_COUPLED, family="adamw"),
    torch.optim.NAdam: replace(_COUPLED, family="adamw"),
    torch.optim.RAdam: replace(_COUPLED, family="adamw"),
    torch.optim.Adamax: replace(_COUPLED, family="adamw"),
    torch.optim.Adagrad: _COUPLED,
    torch.optim.RMSprop: _COUPLED,
    torch.optim.Adadelta: _COUPLED,
    torch.optim.AdamW: replace(_DECOUPLED, family="adamw"),
    torch.optim.Adafactor: _DECOUPLED,
    torch.optim.SparseAdam: _NO_COEFFICIENT,
    torch.optim.LBFGS: _NO_COEFFICIENT,
    torch.optim.Rprop: _NO_COEFFICIENT,
}
if hasattr(torch.optim, "Muon"):
    _TORCH[torch.optim.Muon] = _DECOUPLED
_THROUGH_ADAPTIVE = "it goes through the gradient of an adaptive optimizer (L2)"
_FLAG = "decoupled_weight_decay"


@dataclass(frozen=True)
class Decay:
    """One thing that decays parameters of a param group: the group's own coefficient or an attached rule.

    Attributes:
        key: A name that stays the same along training.
        label: What it is called in words, such as ``"Cautious"`` or ``"AdamW's weight_decay"``.
        decay: The share d of the old weight that a step takes away beside the update, ``w <- (1 - d) w``; 0 for decay
            that goes through the gradient.
        coupled: The coefficient of decay that goes through the gradient, ``g <- g + coupled * w``; 0 for other decay.
        shrink: The share c of the weight that decay takes away per step in the long run. The same as ``decay`` where
            that is not 0. For coupled decay with SGD the momentum buffer amplifies it:
            ``c = lr * coupled * (1 - dampening) / (1 - momentum)``. NaN for coupled decay with an adaptive optimizer,
            which divides it by the size of the gradient, and for decay whose share is not one number known before the
            step.
        covers: Which parameters of the group it decays; None for all.
        target: What it pulls to: ``"zero"``, an ``"anchor"`` or a ``"norm"``.
        knowledge: Whether the share is ``"stated"``, ``"measured"`` on the recorded steps, ``"unknown"``, or whether
            the coefficient was found to do nothing (``"none"``).
        reason: Why it is unknown, in words.
    """

    key: str
    label: str
    decay: Scalar
    coupled: Scalar
    shrink: Scalar
    covers: Callable[[Tensor], bool] | None = None
    target: Target = "zero"
    knowledge: Knowledge = "stated"
    reason: str = ""


class DecayReader:
    """Reads what decays the parameters of an optimizer, step by step.

    Args:
        optimizer: The optimizer; it is only read.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._label = f"{type(optimizer).__name__}'s weight_decay"
        self._own: dict[int, OwnDecay] = {}
        self._largest: dict[int, Scalar] = {}
        self.look()

    def look(self) -> None:
        """Learn what the optimizer's own coefficient does to each group, measuring a class that is not torch's."""
        self._own = {i: _own(self._optimizer, group) for i, group in enumerate(self._optimizer.param_groups)}

    def family(self, index: int) -> str | None:
        """Return the method whose updates those of a group are: ``"adamw"``, ``"sgd"``, ``"lion"`` or None."""
        return self._known(index).family

    def read(self, index: int) -> Iterator[Decay]:
        """Give everything that decays parameters of a group in the step that is about to be taken.

        Args:
            index: Number of the group.

        Yields:
            The group's own decay if it is not 0, and that of each attached rule that acts on the group.
        """
        group = self._optimizer.param_groups[index]
        acting = [
            handle for handle in attached_to(self._optimizer) if any(handle.covers(group, p) for p in group["params"])
        ]
        for handle in acting:
            yield self._of_rule(handle, index, group)
        lr = group.get("lr")
        if lr is None:
            lr = math.nan
        self._largest[index] = _larger(self._largest.get(index, lr), lr)
        own = self._known(index)
        coefficient = group.get(own.key or "weight_decay", 0.0)
        # Rules act on groups without decay of their own. A number that is there nevertheless is one that a rule has
        # lent to the kernel for the time of this step, and is counted already.
        if acting or coefficient is None or not (isinstance(coefficient, Tensor) or coefficient):
            return
        yield self._of_coefficient(own, index, group, lr, coefficient)

    def _known(self, index: int) -> OwnDecay:
        if index not in self._own:  # a group that was added since
            self._own[index] = _own(self._optimizer, self._optimizer.param_groups[index])
        return self._own[index]

    def _of_rule(self, handle: Handle, index: int, group: dict[str, Any]) -> Decay:
        def covers(p: Tensor) -> bool:
            return handle.covers(group, p)

        terms = handle.terms(index, group) or MEASURED
        share, coupled = terms.share, terms.coupled
        long_run = share + self._coupled_shrink(index, group, coupled)
        return Decay(
            key=f"{index}/{handle.slot}",
            label=handle.label,
            decay=share,
            coupled=coupled,
            shrink=long_run,
            covers=covers,
            target=terms.target,
            knowledge="measured" if _is_nan(share) else "unknown" if _is_nan(long_run) else "stated",
            reason=_THROUGH_ADAPTIVE if _is_nan(long_run) and not _is_nan(share) else "",
        )

    def _of_coefficient(
        self, own: OwnDecay, index: int, group: Mapping[str, Any], lr: Scalar, coefficient: Scalar
    ) -> Decay:
        key, label = str(index), self._label
        if own.kind == "none":
            return Decay(key, label, 0.0, 0.0, 0.0, knowledge="none")
        if own.coupled:
            shrink = self._coupled_shrink(index, group, coefficient)
            reason = _THROUGH_ADAPTIVE if _is_nan(shrink) else ""
            return Decay(key, label, 0.0, coefficient, shrink, knowledge=_knowledge(shrink), reason=reason)
        first = group[own.peak] if own.peak and group.get(own.peak) else self._optimizer.defaults.get("lr", math.nan)
        share = own.share(lr, coefficient, first, self._largest[index], group)
        return Decay(key, label, share, 0.0, share, knowledge=_knowledge(share), reason=own.reason)

    def _coupled_shrink(self, index: int, group: Mapping[str, Any], coefficient: Scalar) -> Scalar:
        if not isinstance(coefficient, Tensor) and coefficient == 0:
            return 0.0
        if self.family(index) != "sgd":
            return math.nan
        found: Scalar = step_decay.coupled(
            group["lr"], coefficient, group.get("momentum", 0.0), group.get("dampening", 0.0)
        )
        return found


def _own(optimizer: Optimizer, group: Mapping[str, Any]) -> OwnDecay:
    known = _TORCH.get(type(optimizer))
    if known is None:
        return own_decay(optimizer, group)
    flag = group.get(_FLAG)
    if flag is None:
        return known
    return replace(_DECOUPLED if flag else _COUPLED, family=known.family)


def _larger(one: Scalar, other: Scalar) -> Scalar:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return torch.maximum(torch.as_tensor(one), torch.as_tensor(other))
    return max(one, other)


def _knowledge(share: Scalar) -> Knowledge:
    return "unknown" if _is_nan(share) else "stated"


def _is_nan(x: Scalar) -> bool:
    return not isinstance(x, Tensor) and math.isnan(x)
