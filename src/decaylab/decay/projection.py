"""Rules that set a weight norm directly: after the update, weights go back to where their norm should be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decaylab.decay.norms import norms, scale_, squared_norms, wide
from decaylab.decay.rule import Rule, Step
from decaylab.decay.sharding import local
from decaylab.errors import DecaylabError


def _by_kind(params: list[Tensor]) -> list[list[Tensor]]:
    """Split parameters into lists of one device and dtype, which foreach needs."""
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for p in params:
        kinds.setdefault((p.device, p.dtype), []).append(p)
    return list(kinds.values())


def _total(params: list[Tensor]) -> float:
    """Return ``sum ||p||^2`` over all parameters as a number (one host sync a device and dtype)."""
    return sum(float(squared_norms(kind).sum(dtype=torch.float64)) for kind in _by_kind(params))


def _safe_ratio(target: Tensor | float, norm: Tensor) -> Tensor:
    """Return ``target / norm``, and 1 where the norm is zero: a zero weight has no direction to keep."""
    positive = norm > 0
    return torch.where(positive, target / torch.where(positive, norm, 1.0), 1.0)


@dataclass(frozen=True)
class SphereProjection(Rule):
    r"""Projected descent on a sphere: after the step ``w <- R w / ||w||``.

    For scale-invariant weights, whose effective learning rate is then ``lr / R^2`` (SGD). Joint: one sphere for all of
    the rule's parameters together, as in eq. 3 of the paper and Kodryan et al. 2022 (fixed total effective lr);
    otherwise each tensor has its own. The weights are put on the sphere when the rule is attached. Parameters without a
    gradient stay untouched, and the joint norm is still R: the others make room. A zero gradient projects too.

    Attributes:
        radius: R, or None for the norm that the weights have when the rule is attached.
        joint: One sphere for all, or one a tensor.
        every: Project after every so many steps.
    """

    radius: float | None = None
    joint: bool = True
    every: int = 1

    norm_based: ClassVar[bool] = True
    decays: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.radius is not None and not 0 < self.radius < math.inf:
            raise DecaylabError(f"radius must be a finite number above 0, got {self.radius}")
        if self.every < 1:
            raise DecaylabError(f"every must be at least 1, got {self.every}")

    def prepare(self, params: list[Tensor], state: dict[Tensor, dict[str, Tensor]], shared: dict[str, float]) -> None:
        """Remember the initial norms, or move the weights to the given radius."""
        if self.joint:
            known = [p for p in state if p not in set(params)]
            if self.radius is None:
                shared["radius"] = math.sqrt(shared.get("radius", 0.0) ** 2 + _total(params))
            elif not known:
                total = math.sqrt(_total(params))
                for kind in _by_kind(params):
                    if total > 0:
                        scale_([local(p) for p in kind], _full(kind, self.radius / total))
            return
        for kind in _by_kind(params):
            if self.radius is None:
                for p, norm in zip(kind, norms(kind).unbind(), strict=True):
                    state[p]["radius"] = norm
            else:
                scale_([local(p) for p in kind], _safe_ratio(self.radius, norms(kind)))

    def after(self, step: Step) -> None:
        """Project onto the sphere."""
        if step.index % self.every:
            return
        if not self.joint:
            for part in step.parts:
                target = step.column(part, "radius") if self.radius is None else self.radius
                scale_(part.weights, _safe_ratio(target, norms(part.params, part.weights)))
            return
        if not step.parts:
            return
        home = step.parts[0].weights[0].device
        sums = [squared_norms(part.params, part.weights).sum(dtype=torch.float64).to(home) for part in step.parts]
        rest = [squared_norms(kind).sum(dtype=torch.float64).to(home) for kind in _by_kind(step.absent)]
        radius = step.shared["radius"] if self.radius is None else self.radius
        room = torch.full((), radius**2, dtype=torch.float64, device=home)
        if rest:
            room = (room - torch.stack(rest).sum()).clamp_min(0)
        factor = _safe_ratio(room.sqrt(), torch.stack(sums).sum().sqrt())
        for part in step.parts:
            scale_(
                part.weights, factor.to(part.weights[0].device, wide(part.weights[0].dtype)).expand(len(part.params))
            )


def _full(params: list[Tensor], value: float) -> Tensor:
    return torch.full((len(params),), value, dtype=wide(params[0].dtype), device=params[0].device)
