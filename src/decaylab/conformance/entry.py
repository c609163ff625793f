"""Where does the decay enter the step: on the old weight, on the new one, in the gradient, or inside the update?

Two copies of the optimizer, one with decay and one with next to none (`NONE`), take the same steps from the same
weights with the same gradients. The difference D of their results is the decay's whole effect on that step. Weights are
set anew before every step: a method that keeps the decay in its memory then shows it, because D is no longer along the
weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from decaylab.conformance.subject import MULTIPLIERS, Subject, difference, draws

Kind = Literal["none", "before", "after", "cautious", "masked", "l2", "trust_ratio", "momentum", "memory", "unknown"]

KINDS: dict[str, str] = {
    "none": "lambda has no effect",
    "before": "decoupled: shrinks the weight of before the step",
    "after": "decoupled: shrinks the updated weight",
    "cautious": "decoupled and cautious: shrinks where update and weight agree in sign",
    "masked": "decoupled, on some entries only",
    "l2": "coupled: L2, added to the gradient",
    "trust_ratio": "inside the update, which is rescaled as a whole",
    "momentum": "coupled: added behind any division by the gradient's size, and remembered by the momentum",
    "memory": "on the first step along the weight, later not: the decay leaks into the optimizer's memory",
    "unknown": "neither along the weight nor L2",
}

_DECOUPLED: tuple[Kind, ...] = ("before", "after", "cautious", "masked")
# Some methods change their update where weight_decay is exactly 0 (LAMB turns its trust ratio off). The copy without
# decay therefore has a coefficient that is not 0, and too small to move any number.
NONE = 1e-200
_ULP = 4 * torch.finfo(torch.float64).eps
EXACT = 1e-8
# What an optimizer that computes in float32 inside reaches: rounding of 6e-8 against shares of about 1e-3.
SINGLE = 2e-3


@dataclass(frozen=True)
class Trace:
    """Steps of the two copies under one setting.

    Attributes:
        lr: The constructor's learning rate.
        weight_decay: Lambda.
        multipliers: Learning rate of each step, as a share of ``lr``.
        gradients: One a step.
        old: The weights before each step.
        free: The weights after each step without decay.
        decayed: The weights after each step with decay.
    """

    lr: float
    weight_decay: float
    multipliers: tuple[float, ...]
    gradients: list[Tensor]
    old: list[Tensor]
    free: list[Tensor]
    decayed: list[Tensor]

    @property
    def effects(self) -> list[Tensor]:
        """D of each step."""
        return [with_decay - without for with_decay, without in zip(self.decayed, self.free, strict=True)]


@dataclass(frozen=True)
class Entry:
    """Where the decay enters.

    Attributes:
        kind: See `KINDS`.
        shares: For each trace, the share of the weight that each step removes; empty where there is no such share.
        error: How far the steps are from this kind, relative to the decay's effect.
        single: Whether the optimizer computes in single precision although its weights are float64.
        also_l2: Whether it equals L2 in the gradient as well (plain SGD: no memory, so both are one).
    """

    kind: Kind
    shares: tuple[tuple[float, ...], ...]
    error: float
    single: bool = False
    also_l2: bool = False


def trace(
    subject: Subject,
    *,
    lr: float,
    weight_decay: float,
    scale: float = 1.0,
    seed: int = 0,
    multipliers: tuple[float, ...] = MULTIPLIERS,
) -> Trace:
    """Run the two copies; ``scale`` is the size of the gradients."""
    count = len(multipliers)
    gradients = draws(count, seed=seed, scale=scale)
    old = draws(count, seed=seed + 1)
    free, decayed = (
        subject.run(gradients, start=old[0], lr=lr, weight_decay=value, multipliers=multipliers, resets=old)
        for value in (NONE, weight_decay)
    )
    return Trace(lr, weight_decay, multipliers, gradients, old, free, decayed)


def find_entry(subject: Subject, traces: Sequence[Trace], *, single: bool = False) -> Entry:
    """Say where the decay enters, from traces of different settings.

    Args:
        subject: The optimizer.
        traces: Its steps with and without decay.
        single: Whether it keeps state or weights in less than float64, so that less exactness is asked of it.
    """
    effects = [effect for item in traces for effect in item.effects]
    if not all(effect.isfinite().all() for effect in effects):
        return Entry("unknown", (), float("inf"))
    if not any(effect.any() for effect in effects):
        return Entry("none", (), 0.0)
    distance = l2_distance(subject)
    for tolerance in (EXACT, SINGLE) if single else (EXACT,):
        for kind in _DECOUPLED:
            shares, error = _shares(kind, traces, tolerance)
            if error <= tolerance:
                return Entry(kind, shares, error, tolerance == SINGLE, distance <= tolerance)
        if distance <= tolerance:
            return Entry("l2", (), distance, tolerance == SINGLE, True)
        error = _outside_span(traces, remembered=False)
        if error <= tolerance:
            return Entry("trust_ratio", (), error, tolerance == SINGLE)
        error = _outside_span(traces, remembered=True)
        if error <= tolerance:
            return Entry("momentum", (), error, tolerance == SINGLE)
    first = [_along(item.effects[0], item.old[0])[1] for item in traces]
    return Entry("memory" if max(first) <= SINGLE else "unknown", (), _shares("before", traces, EXACT)[1])


def computes_in_single(subject: Subject) -> bool:
    """Whether float64 weights meet less than float64 on their way: in the optimizer's state, or themselves."""
    weight = nn.Parameter(draws(1, seed=7)[0])
    optimizer = subject.build([weight], 0.05, 0.2)
    for gradient in draws(2, seed=8):
        weight.grad = gradient
        subject.step(optimizer)
    low = (torch.float32, torch.bfloat16, torch.float16)
    state = optimizer.state.get(weight, {}).values()
    tensors = [value for value in state if isinstance(value, Tensor) and value.numel() > 1]
    exact = weight.detach()
    return any(value.dtype in low for value in tensors) or torch.equal(exact.float().double(), exact)


def l2_distance(subject: Subject, *, lr: float = 0.05, weight_decay: float = 0.3) -> float:
    """Largest difference between lambda in the constructor and ``λ p`` added to the gradient by hand.

    Relative to the largest effect that the decay has at all, over the steps of one run.
    """
    gradients, start = draws(len(MULTIPLIERS), seed=5), draws(1, seed=6)[0]
    own = subject.run(gradients, start=start, lr=lr, weight_decay=weight_decay)
    by_hand = subject.run(gradients, start=start, lr=lr, weight_decay=NONE, l2=weight_decay)
    free = subject.run(gradients, start=start, lr=lr, weight_decay=NONE)
    effect = max(difference(left, right) for left, right in zip(own, free, strict=True))
    distance = max(difference(left, right) for left, right in zip(own, by_hand, strict=True))
    return distance / effect if effect else float("inf")


def _along(effect: Tensor, base: Tensor) -> tuple[float, float]:
    """The share f of the best D = -f b, and the largest rest relative to D."""
    share = -float((effect * base).sum() / base.square().sum())
    size = float(effect.abs().max())
    # D is a difference of two weights of base's size: this much of it is float64 rounding
    rounding = _ULP * float(base.abs().max())
    rest = max(float((effect + share * base).abs().max()) - rounding, 0.0)
    return share, rest / size if size else 0.0


def _shares(kind: str, traces: Sequence[Trace], tolerance: float) -> tuple[tuple[tuple[float, ...], ...], float]:
    shares, worst, masked = [], 0.0, False
    rounding = 1e-6 if tolerance == SINGLE else 1e-13
    for item in traces:
        row = []
        for effect, old, free in zip(item.effects, item.old, item.free, strict=True):
            base = free if kind == "after" else old
            if kind in ("cautious", "masked"):
                touched = effect.abs() > rounding * old.abs().max()
                masked |= not bool(touched.all())
                if kind == "cautious":
                    touched = (old - free) * old >= 0
                base = torch.where(touched, base, torch.zeros_like(base))
                if not touched.any():
                    row.append(0.0)
                    worst = max(worst, float(effect.abs().max() > 0))
                    continue
            share, error = _along(effect, base)
            row.append(share)
            worst = max(worst, error)
        shares.append(tuple(row))
    if kind in ("cautious", "masked") and not masked:
        return (), float("inf")
    return tuple(shares), worst


def _outside_span(traces: Sequence[Trace], *, remembered: bool) -> float:
    """How far D is at worst from the span of the old weight and the update; with ``remembered``, of all so far."""
    worst = 0.0
    for item in traces:
        columns: list[Tensor] = []
        for effect, old, free in zip(item.effects, item.old, item.free, strict=True):
            columns = [*(columns if remembered else []), old.flatten(), (free - old).flatten()]
            if not effect.any():
                continue
            span = torch.stack([column for column in columns if column.any()], dim=1)
            span = span / span.norm(dim=0)
            solution = torch.linalg.lstsq(span, effect.flatten(), driver="gelsd").solution
            rest = (span @ solution - effect.flatten()).abs().max() / effect.abs().max()
            worst = max(worst, float(rest))
    return worst
