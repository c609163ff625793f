"""Rules that set a weight norm directly: after the update, weights go back to where their norm should be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decaylab.conventions.step_decay import HELD_NORM, DecayTerms
from decaylab.decay.rule import Part, Rule, Step
from decaylab.errors import DecaylabError
from decaylab.tensors import multi_tensor
from decaylab.tensors.foreach import by_kind, exact, multiply_, norms, safe_ratio, scale_, squared_norms, wide, widened
from decaylab.tensors.sharding import is_sharded, local, refuse_split_rows

State = dict[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class _Projection(Rule):
    """Base of the projections: they act after the update, every so many steps."""

    norm_based: ClassVar[bool] = True
    decays: ClassVar[bool] = False

    def decay_terms(self, part: Part) -> DecayTerms:
        """State that a norm is held or bounded."""
        return HELD_NORM

    def _check_number(self, name: str, value: float | None) -> None:
        if value is not None and not 0 < value < math.inf:
            raise DecaylabError(f"{name} must be a finite number above 0, got {value}")

    def _check_every(self, every: int) -> None:
        if every < 1:
            raise DecaylabError(f"every must be at least 1, got {every}")


@dataclass(frozen=True)
class SphereProjection(_Projection):
    r"""Projected descent on a sphere: after the step ``w <- R w / ||w||``.

    For scale-invariant weights, whose effective learning rate is then fixed, ``lr / R^2`` with SGD. Joint: one sphere
    for all of the rule's parameters together (Kodryan et al. 2022, arXiv 2209.03695, fixed total effective learning
    rate); otherwise each tensor has its own. With a given radius the weights are put on the sphere when the rule is
    attached. Parameters without a gradient stay untouched, and the joint norm is still R: the others make room. A zero
    gradient projects too.

    Attributes:
        radius: R, or None for the norm that the weights have when the rule is attached.
        joint: One sphere for all, or one a tensor.
        every: Project after every so many steps.
    """

    radius: float | None = None
    joint: bool = True
    every: int = 1

    def __post_init__(self) -> None:
        self._check_number("radius", self.radius)
        self._check_every(self.every)

    def prepare(self, params: list[Tensor], state: State, shared: dict[str, float]) -> None:
        """Remember the initial norms, or move the weights to the given radius."""
        if not self.joint:
            _remember_norms(params, state, self.radius)
            return
        total = sum(float(exact(squared_norms(kind)).sum()) for kind in by_kind(params))
        first = "radius" not in shared
        shared["radius"] = math.sqrt(shared.get("radius", 0.0) ** 2 + total) if self.radius is None else self.radius
        # Parameters that join later have been seen by this step's gradient already: the step itself projects them.
        if self.radius is not None and first and total > 0:
            for kind in by_kind(params):
                multiply_([local(p) for p in kind], self.radius / math.sqrt(total))

    def after(self, step: Step) -> None:
        """Project onto the sphere."""
        if step.index % self.every or not step.parts:
            return
        if not self.joint:
            _rescale(step, self.radius)
            return
        home = step.parts[0].weights[0].device
        present = [exact(squared_norms(part.params, part.weights)).sum().to(home) for part in step.parts]
        room = torch.full_like(present[0], step.shared["radius"] ** 2)
        for kind in by_kind(step.absent):
            room = room - exact(squared_norms(kind)).sum().to(home)
        factor = safe_ratio(room.clamp_min(0).sqrt(), torch.stack(present).sum().sqrt())
        for part in step.parts:
            scale_(part.weights, factor.to(part.weights[0].device).expand(len(part.params)))


@dataclass(frozen=True)
class FixedNorm(_Projection):
    r"""Fixed weight norms in the place of decay: after the step ``w <- n w / ||w||``, each tensor on its own.

    FixNorm-style (Zhou et al. 2021, arXiv 2103.15345; its full text was not read, this is a reconstruction from its
    claims) and weight rescaling (Liu et al. 2021, arXiv 2102.03497): normalised layers keep their initial norm,
    ``FixedNorm()``, and the last layer gets a norm of its own, a hyper-parameter, ``FixedNorm(norm=tau, cap=True)``. A
    zero gradient projects too.

    Attributes:
        norm: n, or None for each tensor's norm when the rule is attached.
        cap: Only shrink tensors whose norm is above n.
        every: Rescale after every so many steps.
    """

    norm: float | None = None
    cap: bool = False
    every: int = 1

    def __post_init__(self) -> None:
        self._check_number("norm", self.norm)
        self._check_every(self.every)

    def prepare(self, params: list[Tensor], state: State, shared: dict[str, float]) -> None:
        """Remember the initial norms, or move the weights to the given one."""
        _remember_norms(params, state, self.norm, self.cap)

    def after(self, step: Step) -> None:
        """Rescale every tensor."""
        if step.index % self.every == 0:
            _rescale(step, self.norm, self.cap)


@dataclass(frozen=True)
class NormalizeAndProject(_Projection):
    r"""The projection of normalise-and-project (NaP): ``W <- ||W_0|| W / ||W||`` for each tensor, every k steps.

    The other half of the method, a normalisation before every nonlinearity, is a matter of the model. Attach it to
    weights that feed a normalisation, not to the output layer. Learnable gains and offsets of a normalisation: either
    `L2ToAnchor` with a small coefficient, or, with positively homogeneous activations, a joint `SphereProjection` a
    layer over the gain and the offset. A zero gradient projects too. Lyle et al. 2024 (arXiv 2407.01800).

    Attributes:
        every: k; 1 and 1000 are reported to do the same.
    """

    every: int = 1

    def __post_init__(self) -> None:
        self._check_every(self.every)

    def prepare(self, params: list[Tensor], state: State, shared: dict[str, float]) -> None:
        """Remember the initial norms."""
        _remember_norms(params, state, None)

    def after(self, step: Step) -> None:
        """Rescale every tensor to its initial norm."""
        if step.index % self.every == 0:
            _rescale(step, None)


@dataclass(frozen=True)
class MaxNorm(_Projection):
    r"""A ceiling for the norm of each row: rows with ``||w_c|| > theta`` become ``theta w_c / ||w_c||``.

    A row (index of dimension 0) is the weight vector of one output, such as a class. Without a threshold, theta is set
    once for each tensor when the rule is attached: ``n_min + fraction (n_max - n_min)`` over its row norms then.
    Tensors of one dimension (biases) are left alone. Can be combined with a decay. A zero gradient projects too.
    Alshammari et al. 2022 (arXiv 2203.14197), who project once an epoch: set ``every`` to the steps of an epoch.

    Attributes:
        threshold: theta, or None.
        fraction: See above.
        every: Project after every so many steps.
    """

    threshold: float | None = None
    fraction: float = 0.1
    every: int = 1

    def __post_init__(self) -> None:
        self._check_number("threshold", self.threshold)
        self._check_every(self.every)
        if not 0 <= self.fraction <= 1:
            raise DecaylabError(f"fraction must be between 0 and 1, got {self.fraction}")

    def takes(self, param: Tensor) -> bool:
        """Tensors with rows."""
        return param.dim() > 1

    def prepare(self, params: list[Tensor], state: State, shared: dict[str, float]) -> None:
        """Set the threshold of each tensor."""
        refuse_split_rows(params)
        for p in params:
            if self.threshold is not None:
                continue
            if is_sharded(p):
                raise DecaylabError("MaxNorm cannot see the rows of other ranks to set its threshold: give threshold")
            rows = row_norms(p)
            if rows.numel() == 0:
                state[p]["threshold"] = rows.new_zeros(())
                continue
            low, high = rows.aminmax()
            state[p]["threshold"] = low + self.fraction * (high - low)

    def after(self, step: Step) -> None:
        """Shrink the rows that are too long."""
        if step.index % self.every:
            return
        for part in step.parts:
            if multi_tensor.usable(part.weights) and multi_tensor.rows_fit(part.weights):
                if self.threshold is None:
                    ceilings = step.column(part, "threshold")
                else:
                    ceilings = torch.full((len(part.params),), self.threshold, device=part.weights[0].device)
                multi_tensor.cap_rows_(part.weights, ceilings)
                continue
            # Row norms have no foreach form; a classifier has one tensor or few.
            for p, weight in zip(part.params, part.weights, strict=True):
                ceiling = step.state[p]["threshold"] if self.threshold is None else self.threshold
                factor = safe_ratio(ceiling, row_norms(weight)).clamp_max_(1)
                (wider,) = widened([weight])
                wider.mul_(factor.view(-1, *[1] * (weight.dim() - 1)))
                if wider is not weight:
                    weight.copy_(wider)


def row_norms(weight: Tensor) -> Tensor:
    """Return the norm of every row (index of dimension 0) of a tensor of at least two dimensions."""
    found: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1, dtype=wide(weight.dtype))
    return found


def _remember_norms(params: list[Tensor], state: State, norm: float | None, cap: bool = False) -> None:
    for kind in by_kind(params):
        now = norms(kind)
        if norm is not None:
            factors = safe_ratio(norm, now)
            scale_([local(p) for p in kind], factors.clamp_max_(1) if cap else factors)
            continue
        for p, value in zip(kind, now.unbind(), strict=True):
            state[p]["norm"] = value


def _rescale(step: Step, norm: float | None, cap: bool = False) -> None:
    for part in step.parts:
        target = step.column(part, "norm") if norm is None else norm
        factors = safe_ratio(target, norms(part.params, part.weights))
        scale_(part.weights, factors.clamp_max_(1) if cap else factors)
