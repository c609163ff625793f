"""Which method is underneath, and does it end where its golden case ends?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from decaylab.conformance.cases import GOLDEN, GRADIENTS, LR, MULTIPLIERS, START, Golden
from decaylab.conformance.context import Context, broken, holds, skipped
from decaylab.conformance.entry import NONE
from decaylab.conformance.finding import Finding
from decaylab.conformance.meaning import MEANINGS
from decaylab.conformance.reference import METHODS, Constants, trajectory
from decaylab.conformance.subject import difference


def golden(context: Context) -> Finding:
    """Three steps of a known method end at the known numbers."""
    name, subject = "golden", context.subject
    start = torch.tensor(START, dtype=torch.float64)
    gradients = [torch.tensor(gradient, dtype=torch.float64) for gradient in GRADIENTS]
    settings: dict[str, Any] = {"lr": LR, "multipliers": MULTIPLIERS, "start": start}
    free = subject.run(gradients, weight_decay=NONE, **settings)
    base = None
    for key in METHODS:
        steps = trajectory(key, context.constants, gradients, **settings)
        if max(difference(left, right) for left, right in zip(free, steps, strict=True)) <= context.closeness:
            base = key
            break
    if base is None:
        return skipped(name, _nearest(free, context.constants, gradients, settings))
    kind = context.entry.kind
    if kind not in ("before", "after", "cautious", "l2") or (kind != "l2" and context.meaning not in MEANINGS):
        return skipped(name, f"{METHODS[base][0]} without decay, but no reference for its decay")
    ours = context.meaning or "torch"
    case = _published(context, base)
    decay = case.weight_decay if case is not None else 0.1
    expected = trajectory(
        base,
        context.constants,
        gradients,
        weight_decay=decay,
        meaning=ours,
        entry=kind,
        **settings,
    )[-1]
    got = subject.run(gradients, weight_decay=decay, **settings)[-1]
    off = difference(got, expected)
    text = f"{METHODS[base][0]} with λ={decay:g}: off by {off:.1g} after three steps"
    if case is not None:
        off = max(off, difference(got.flatten(), torch.tensor(case.result, dtype=torch.float64)))
        text = f"published vector {case.name!r}: off by {off:.1g} after three steps"
    return (holds if off <= context.closeness else broken)(name, text, difference=off)


def _nearest(free: list[Tensor], constants: Constants, gradients: list[Tensor], settings: dict[str, Any]) -> str:
    """Which method the unknown one is like, and where it leaves it."""
    distances = []
    for key, (title, _) in METHODS.items():
        steps = trajectory(key, constants, gradients, **settings)
        offs = [difference(left, right) for left, right in zip(free, steps, strict=True)]
        distances.append((max(offs), title, offs))
        if max(offs) > 1e-4 and offs[0] <= 1e-7 and key != "sgd":
            return f"{title}'s first step, then off it by {offs[1]:.2g} and {offs[2]:.2g}"
    worst, title, _ = min(distances)
    return f"nearly {title}: off by {worst:.2g}" if worst <= 1e-4 else "without decay it is none of SGD, Adam, Lion"


def _published(context: Context, base: str) -> Golden | None:
    """The published vector of this method with these constants, if there is one."""
    for case in GOLDEN:
        same = replace(Constants(), momentum=case.momentum) == context.constants
        if same and (case.base, case.entry, case.meaning) == (base, context.entry.kind, context.meaning):
            return case
    return None
