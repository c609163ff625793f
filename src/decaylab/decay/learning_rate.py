"""The learning rate of a param group and its peak, as rules read them."""

from __future__ import annotations

import math
import warnings
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from decaylab.decay.rule import Rule, Scalar
from decaylab.errors import DecaylabError


class _Unknown:
    """Stands for a learning rate that an optimizer chooses by itself; every use of it says so."""

    def __init__(self, words: str) -> None:
        self._words = words

    def _refuse(self, *_: Any) -> Any:
        raise DecaylabError(self._words)

    __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __add__ = __radd__ = __sub__ = __rsub__ = __float__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __pow__ = _refuse


def learning_rate(optimizer: Optimizer, index: int, rule: Rule) -> Scalar:
    """Return the learning rate of a group.

    Where it is None or missing, as in Adafactor's relative steps, the result raises `DecaylabError` once a rule
    computes with it: rules that need no learning rate go on.
    """
    lr: Scalar | None = optimizer.param_groups[index].get("lr")
    if lr is not None:
        return lr
    unknown: Any = _Unknown(
        f"{type(optimizer).__name__} has no learning rate in group {index} (it chooses its own), and "
        f"{type(rule).__name__} multiplies by it: give the optimizer lr, or use Constant"
    )
    return unknown  # type: ignore[no-any-return]


class Peaks:
    """Peak learning rates of param groups: the rule's own, the scheduler's, or the one at attaching.

    Attributes:
        attaching: Refuse a learning rate above its peak; later, inside steps, the largest one so far is the peak.
    """

    def __init__(self, rule: Rule) -> None:
        self.attaching = True
        self._rule = rule
        self._known: dict[int, float] = {}
        self._above: dict[int, float] = {}

    def __getitem__(self, index: int) -> float:
        return self._known[index]

    def __setitem__(self, index: int, peak: float) -> None:
        self._known[index] = peak

    def note(self, index: int, group: dict[str, Any]) -> None:
        """Remember the learning rate that a group has when it is first seen."""
        if index not in self._known:
            first = group.get("initial_lr", group.get("lr"))
            self._known[index] = 0.0 if first is None else float(first)

    def find(self, index: int, group: dict[str, Any], first: bool) -> float:
        """Return the peak of a group.

        Infinity while that is 0, like the learning rate: whatever share of the peak it is, nothing decays.

        Args:
            index: Number of the group.
            group: The group.
            first: This is the first step; later, a peak that is a tensor is not read from its device again.

        Raises:
            DecaylabError: The learning rate is above its peak when the rule is attached, or a tensor whose peak is 0.
        """
        lr = group.get("lr")
        given = getattr(self._rule, "max_lr", None)
        peak = group.get("max_lr", group.get("initial_lr", self._known[index])) if given is None else given
        if isinstance(peak, Tensor):
            peak = float(peak) if first else self._known[index]  # one host sync, not one a step
        peak = self._known[index] = max(float(peak), self._above.get(index, 0.0))
        if isinstance(lr, Tensor):
            if peak == 0:  # what it is later would have to be asked of the device
                raise DecaylabError("the learning rate is 0 when the rule is attached: give the rule max_lr, its peak")
        elif lr is not None and lr > peak * (1 + 1e-6):
            peak = self._exceed(index, lr, peak)
        return peak or math.inf

    def _exceed(self, index: int, lr: float, peak: float) -> float:
        text = (
            f"the learning rate {lr:g} is above max_lr {peak:g}, the peak that {type(self._rule).__name__} divides by"
        )
        if self.attaching:
            raise DecaylabError(f"{text}: give the rule max_lr")
        if index not in self._above:
            warnings.warn(
                f"{text}: the largest one so far stands for it from now on; give the rule max_lr", stacklevel=2
            )
        self._above[index] = self._known[index] = lr
        return lr
