"""Rules that steer the weight norm beside the update: towards a target, below a bound, or never off its start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from decaylab.conventions import step_decay
from decaylab.conventions.step_decay import HELD_NORM, DecayTerms
from decaylab.decay.rule import DecayRule, Part, Rule, Step
from decaylab.errors import DecaylabError, unknown
from decaylab.tensors import multi_tensor
from decaylab.tensors.blocks import offset_products
from decaylab.tensors.foreach import by_kind, norms, safe_ratio, scale_, squared_norms, widened
from decaylab.tensors.sharding import local

State = dict[Tensor, dict[str, Tensor]]
Bound = Literal["uniform", "warm_start", "dependent", "inflection"]


@dataclass(frozen=True)
class WeightNormControl(DecayRule):
    r"""Weight norm control (AdamWN): each tensor's norm is pulled to a target instead of to zero.

    After the optimizer's step, ``p <- p - k_t (1 - r ||p_0|| / ||p||) p`` with ``k_t = k lr_t / lr_max``. With r = 0 it
    is decay by the share ``k_t`` (taken after the step); with ``k_t = 1`` the norm is set to ``r ||p_0||`` at once. A
    zero gradient is controlled too. Loshchilov 2023 (arXiv 2311.11446), eq. 3; the order against the Adam step is a
    reconstruction.

    Attributes:
        weight_decay: k, the update rate at the peak learning rate.
        ratio: r, the target as a share of the norm at attaching.
        target: The target norm itself, instead of ratio.
        max_lr: Peak learning rate; see `Independent`.
    """

    ratio: float = 1.0
    target: float | None = None
    max_lr: float | None = None

    norm_based: ClassVar[bool] = True
    uses_lr: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratio < 0 or (self.target is not None and self.target < 0):
            raise DecaylabError("ratio and target are norms and must not be negative")
        if self.max_lr is not None and not self.max_lr > 0:
            raise DecaylabError(f"max_lr must be above 0, got {self.max_lr}")

    def prepare(self, params: list[Tensor], state: State, shared: dict[str, float]) -> None:
        """Remember the initial norms."""
        for kind in by_kind(params):
            for p, norm in zip(kind, norms(kind).unbind(), strict=True):
                state[p]["norm"] = norm

    def decay_terms(self, part: Part) -> DecayTerms:
        """State that a norm is approached."""
        return HELD_NORM

    def after(self, step: Step) -> None:
        """Pull every norm towards its target."""
        for part in step.parts:
            rate = step_decay.independent(part.lr, self.weight_decay * part.strength, part.find_max_lr())
            if not isinstance(rate, Tensor) and rate == 0:
                continue
            target = self.ratio * step.column(part, "norm") if self.target is None else self.target
            scale_(part.weights, 1 - rate * (1 - safe_ratio(target, norms(part.params, part.weights))))


@dataclass(frozen=True)
class Constrained(Rule):
    r"""Constrained parameter regularisation (CPR): a bound on each tensor's squared norm, held by a multiplier.

    After the optimizer's step, for each tensor of n weights, ``mu <- max(0, mu + update / n (||p||^2 - kappa))``, then
    ``p <- p - 2 mu p`` (not times the learning rate). Nothing happens to a tensor that keeps to its bound. A zero
    gradient is controlled too. Franke et al. 2023 (arXiv 2311.09058).

    The bound ``kappa`` of a tensor:

    * ``uniform``: ``kappa * n``, one mean square for all;
    * ``warm_start``: ``||p||^2`` after ``steps`` steps, none before;
    * ``dependent``: ``kappa ||p_0||^2``;
    * ``inflection``: ``||p||^2`` at the first step where its growth slows down, none before.

    Attributes:
        bound: Which of the four.
        kappa: See above.
        steps: See above.
        update: Rate at which the multiplier follows the excess.
    """

    bound: Bound = "dependent"
    kappa: float = 1.0
    steps: int = 1000
    update: float = 1.0

    norm_based: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.bound not in get_args(Bound):
            raise unknown("bound of Constrained", str(self.bound), get_args(Bound))
        if not 0 < self.kappa < math.inf or not 0 <= self.update < math.inf or self.steps < 1:
            raise DecaylabError("Constrained needs kappa above 0, update of at least 0 and steps of at least 1")

    @property
    def counts_steps(self) -> bool:
        """warm_start does."""
        return self.bound == "warm_start"

    def prepare(self, params: list[Tensor], state: State, shared: dict[str, float]) -> None:
        """Set the bounds that are known from the start."""
        for kind in by_kind(params):
            squares = squared_norms(kind)
            for p, square in zip(kind, squares.unbind(), strict=True):
                known = {"uniform": torch.full_like(square, self.kappa * p.numel()), "dependent": self.kappa * square}
                state[p]["mu"] = torch.zeros_like(square)
                state[p]["size"] = torch.full_like(square, p.numel())
                state[p]["kappa"] = known.get(self.bound, torch.full_like(square, math.inf))
                if self.bound == "inflection":
                    state[p]["square"] = square
                    state[p]["growth"] = torch.full_like(square, -math.inf)

    def decay_terms(self, part: Part) -> DecayTerms:
        """State that a norm is bounded."""
        return HELD_NORM

    def after(self, step: Step) -> None:
        """Move the multipliers and shrink the tensors above their bound."""
        for part in step.parts:
            squares = squared_norms(part.params, part.weights)
            kappa = step.column(part, "kappa")
            if self.bound == "warm_start" and step.index >= self.steps:  # later for what had no gradient at that step
                kappa = torch.where(kappa.isinf(), squares, kappa)
            elif self.bound == "inflection":
                growth = squares - step.column(part, "square")
                slower = growth < step.column(part, "growth")
                kappa = torch.where(kappa.isinf() & slower, squares, kappa)
                step.store_column(part, "square", squares)
                step.store_column(part, "growth", growth)
            rate = self.update / step.column(part, "size")
            mu = (step.column(part, "mu") + rate * (squares - kappa)).clamp_min_(0)
            step.store_column(part, "kappa", kappa)
            step.store_column(part, "mu", mu)
            scale_(part.weights, 1 - 2 * mu)


@dataclass(frozen=True)
class Hyperball(Rule):
    r"""Steps of a fixed length on a sphere: ``W <- R Norm(W - lr_t R Norm(u))`` for each tensor, Norm(x) = x / ||x||.

    R is the norm at attaching or a given one, ``u`` the optimizer's update, taken as what the weights really moved by:
    only its direction counts, so the learning rate is the step as a share of the radius. There is no lambda; the tuned
    ``sqrt(lr lambda)`` of AdamW is suggested as the learning rate. For matrices: tensors of one dimension are left to
    the plain optimizer. A zero update leaves the weight where it is. Wen et al. 2025 (AdamH, MuonH).

    Attributes:
        radius: R for every tensor, or None for each tensor's norm when the rule is attached.
    """

    radius: float | None = None

    norm_based: ClassVar[bool] = True
    keeps_old: ClassVar[bool] = True
    uses_lr: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.radius is not None and not 0 < self.radius < math.inf:
            raise DecaylabError(f"radius must be a finite number above 0, got {self.radius}")

    def takes(self, param: Tensor) -> bool:
        """Matrices and tensors of more dimensions."""
        return param.dim() > 1

    def prepare(self, params: list[Tensor], state: State, shared: dict[str, float]) -> None:
        """Remember the initial norms, or move the weights to the given radius."""
        for kind in by_kind(params):
            now = norms(kind)
            if self.radius is not None:
                scale_([local(p) for p in kind], safe_ratio(self.radius, now))
                now = torch.where(now > 0, self.radius, now)
            for p, value in zip(kind, now.unbind(), strict=True):
                state[p]["radius"] = value

    def decay_terms(self, part: Part) -> DecayTerms:
        """State that a norm is held."""
        return HELD_NORM

    def after(self, step: Step) -> None:
        """Replace the optimizer's step by one of length ``lr R`` in its direction, and return to the sphere."""
        for part in step.parts:
            radius = step.column(part, "radius")
            if multi_tensor.usable(part.weights, part.old):
                self._step_on_sphere(part, radius)
                continue
            # In place in the weights: what they moved by, that at its new length, and the sum with the old ones.
            old, moved = widened(part.old), widened(part.weights)
            torch._foreach_sub_(moved, old)
            length = norms(part.params, moved)
            scale_(moved, torch.where(length > 0, part.lr * radius / torch.where(length > 0, length, 1.0), 0.0))
            torch._foreach_add_(moved, old)
            scale_(moved, safe_ratio(radius, norms(part.params, moved)))
            if moved is not part.weights:
                torch._foreach_copy_(part.weights, moved)

    def _step_on_sphere(self, part: Part, radius: Tensor) -> None:
        """Do it in two passes: the norm of the sum is known from the products of its terms before it is formed."""
        inner, squares = offset_products(part.params, part.weights, part.old, part.old)
        length = squares.sqrt()
        share = torch.where(length > 0, part.lr * radius / torch.where(length > 0, length, 1.0), 0.0)
        total = squared_norms(part.params, part.old) + share * (2 * inner + share * squares)
        factor = safe_ratio(radius, total.clamp_min(0).sqrt())
        multi_tensor.combine_(part.weights, part.old, share, factor)
