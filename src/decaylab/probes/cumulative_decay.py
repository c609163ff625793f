"""How much decay has each parameter gone through, if only the steps count that moved it?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from decaylab.probes.active_decay import Decay, Scalar


class Elapsed:
    """Sums of the shrink rates of `Decay` over steps, by parameter.

    An optimizer leaves parameters without a gradient alone, decay and all. The sums are kept once for each decay, and
    for a parameter without a gradient what it misses of them. What it misses is looked at only when its gradient comes
    or goes, so that a step costs one look at each gradient, and nothing waits for a device.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        """Start at 0 for ``parameters``, by name."""
        self._names, self._parameters = tuple(parameters), tuple(parameters.values())
        self._sums: dict[str, Scalar] = {}
        self._missed: dict[int, dict[str, Scalar]] = {}
        self._absent: list[int] = []
        self._since: dict[int, dict[str, Scalar]] = {}  # the sums when the gradient was last seen
        self._never: set[int] | None = None

    def count(self, decays: Iterable[Decay], stopped: object, cleared: bool) -> None:
        """Add the shrink rates of a step that was just taken.

        Args:
            decays: What acted in it.
            stopped: A tensor that is 1 where a fused kernel was told to skip the step; anything else is ignored.
            cleared: Whether there were gradients before the step; without any after it, somebody has cleared them
                since, and all parameters count as stepped.
        """
        absent = [i for i, p in enumerate(self._parameters) if p.grad is None]
        if cleared and len(absent) == len(self._parameters):
            absent = []
        if absent != self._absent or self._never is None:
            self._change(absent)
        for decay in decays:
            shrink = decay.shrink
            if not isinstance(shrink, Tensor) and math.isnan(shrink):
                continue
            if isinstance(stopped, Tensor):
                shrink = shrink * (1.0 - stopped.detach().reshape(()).double())
            self._sums[decay.key] = self._sums.get(decay.key, 0.0) + shrink

    def _change(self, absent: list[int]) -> None:
        now, before = set(absent), set(self._absent)
        for i in before - now:
            self._missed[i] = self._missed_by(i)
            del self._since[i]
        sums = dict(self._sums)
        self._since.update(dict.fromkeys(now - before, sums))
        self._never = now if self._never is None else self._never & now
        self._absent = absent

    def _missed_by(self, index: int) -> dict[str, Scalar]:
        missed = dict(self._missed.get(index, {}))
        since = self._since.get(index)
        for key, total in self._sums.items() if since is not None else ():
            missed[key] = missed.get(key, 0.0) + (total - since.get(key, 0.0))  # type: ignore[union-attr]
        return missed

    @property
    def stepped(self) -> tuple[bool, ...]:
        """Whether the last step moved the parameter."""
        absent = set(self._absent)
        return tuple(i not in absent for i in range(len(self._parameters)))

    @property
    def ever(self) -> tuple[bool, ...]:
        """Whether any step so far has moved the parameter."""
        never = self._never or set()
        return tuple(i not in never for i in range(len(self._parameters)))

    def missed(self) -> dict[int, dict[str, Scalar]]:
        """What parameters miss of the sums, by place and key; those that miss nothing are left out."""
        return {i: self._missed_by(i) for i in sorted({*self._missed, *self._absent})}

    def sums(self) -> Mapping[str, Scalar]:
        """The sums for a parameter that misses nothing, by key of `Decay`."""
        return self._sums

    def state_dict(self) -> dict[str, Any]:
        """What must survive an interruption."""
        missed = {self._names[i]: {key: float(x) for key, x in sums.items()} for i, sums in self.missed().items()}
        never = None if self._never is None else [self._names[i] for i in sorted(self._never)]
        return {"passed": {key: float(x) for key, x in self._sums.items()}, "missed": missed, "never": never}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; what a state of an older version lacks is nothing missed."""
        place = {name: i for i, name in enumerate(self._names)}
        self._sums = {key: float(x) for key, x in state["passed"].items()}
        missed: Mapping[str, Mapping[str, float]] = state.get("missed", {})
        self._missed = {place[name]: dict(sums) for name, sums in missed.items() if name in place}
        never: Sequence[str] | None = state.get("never", [] if self._sums else None)
        self._never = None if never is None else {place[name] for name in never if name in place}
        self._absent, self._since = [], {}
