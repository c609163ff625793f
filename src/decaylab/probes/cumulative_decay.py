"""Decay that each parameter has gone through, counted over the steps that moved it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from decaylab.probes.active_decay import Decay, Scalar


class Elapsed:
    """Sums of the shrink rates of `Decay` over steps, by parameter.

    An optimizer leaves parameters without a gradient alone, decay and all. The sums are kept once for each decay, and
    for a parameter without a gradient what it misses of them. What it misses is looked at only when its gradient comes
    or goes, so that a step costs one look at each gradient, and nothing waits for a device.

    Decay whose share is measured on recorded steps is taken to go on at the last measured rate until the next one.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        """Start at 0 for ``parameters``, by name."""
        self._names, self._parameters = tuple(parameters), tuple(parameters.values())
        self._sums: dict[str, Scalar] = {}
        self._missed: dict[int, dict[str, Scalar]] = {}
        self._absent: list[int] = []
        self._since: dict[int, dict[str, Scalar]] = {}  # the sums when the gradient was last seen
        self._never: set[int] | None = None
        self._rate: Tensor | None = None  # measured shares, (P,), of rules that state none
        self._held: Tensor | None = None
        self._unmeasured = 0  # steps without a rate
        self._present: Tensor | None = None
        self._followed = False  # other parameters than in the last step

    def follow(self, parameters: Mapping[str, Tensor]) -> None:
        """Go on with other parameters: known tensors keep their sums, new ones start at 0."""
        before = {id(p): i for i, p in enumerate(self._parameters)}
        old = [before.get(id(p)) for p in parameters.values()]
        sums = dict(self._sums)
        missed = {
            j: self._missed_by(i) for j, i in enumerate(old) if i is not None and i in {*self._missed, *self._since}
        }
        missed |= {j: sums for j, i in enumerate(old) if i is None and sums}
        never = self._never or set()
        self._never = {j for j, i in enumerate(old) if i is None or i in never} if self._never is not None else None
        if self._held is not None:
            values = [None if i is None else self._held[i] for i in old]
            zero = self._held.new_zeros(())
            self._held = torch.stack([zero if value is None else value for value in values])
        self._rate = None
        self._names, self._parameters = tuple(parameters), tuple(parameters.values())
        self._missed, self._absent, self._since, self._present = missed, [], {}, None
        self._followed = True

    def hold(self, rate: Tensor) -> None:
        """Count shares that were measured in the step at hand, (P,), for it and for the steps until the next call."""
        before = rate * self._unmeasured  # steps since the beginning or a resumption, at the same rate
        self._held = before if self._held is None else self._held.to(rate) + before
        self._rate, self._unmeasured = rate, 0

    def held(self, like: Tensor) -> Tensor:
        """Sum of the measured shares so far, (P,)."""
        return torch.zeros_like(like) if self._held is None else self._held.to(like)

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
        if absent != self._absent or self._never is None or self._followed:
            self._change(absent)
        self._count_measured(stopped)
        for decay in decays:
            shrink = decay.shrink
            if decay.target != "zero" or decay.knowledge == "measured":
                continue
            if not isinstance(shrink, Tensor) and math.isnan(shrink):
                continue
            if isinstance(stopped, Tensor):
                shrink = shrink * (1.0 - stopped.detach().reshape(()).double())
            self._sums[decay.key] = self._sums.get(decay.key, 0.0) + shrink

    def _count_measured(self, stopped: object) -> None:
        if self._rate is None:
            self._unmeasured += 1
            return
        assert self._held is not None
        if self._absent and self._present is None:
            present = torch.ones_like(self._rate)
            present[torch.tensor(self._absent, device=present.device)] = 0.0
            self._present = present
        rate = self._rate if self._present is None else self._rate * self._present
        if isinstance(stopped, Tensor):
            rate = rate * (1.0 - stopped.detach().reshape(()).to(rate))
        self._held = self._held + rate

    def _change(self, absent: list[int]) -> None:
        now, before = set(absent), set(self._absent)
        for i in before - now:
            self._missed[i] = self._missed_by(i)
            del self._since[i]
        sums = dict(self._sums)
        self._since.update(dict.fromkeys(now - before, sums))
        self._never = now if self._never is None else self._never & now
        self._absent, self._present, self._followed = absent, None, False

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
        held = {} if self._held is None else dict(zip(self._names, self._held.tolist(), strict=True))
        passed = {key: float(x) for key, x in self._sums.items()}
        return {"passed": passed, "missed": missed, "never": never, "held": held}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; what a state of an older version lacks is nothing missed."""
        place = {name: i for i, name in enumerate(self._names)}
        self._sums = {key: float(x) for key, x in state["passed"].items()}
        missed: Mapping[str, Mapping[str, float]] = state.get("missed", {})
        self._missed = {place[name]: dict(sums) for name, sums in missed.items() if name in place}
        never: Sequence[str] | None = state.get("never", [] if self._sums else None)
        self._never = None if never is None else {place[name] for name in never if name in place}
        self._absent, self._since, self._present = [], {}, None
        held: Mapping[str, float] = state.get("held", {})
        kind = torch.float32 if any(p.device.type == "mps" for p in self._parameters) else torch.float64
        device = self._parameters[0].device if self._parameters else None
        values = [held.get(name, 0.0) for name in self._names]
        self._held = torch.tensor(values, dtype=kind, device=device) if held else None
