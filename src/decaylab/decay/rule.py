"""What is a decay rule, and what does it get to see during an optimizer step?

A rule is a small frozen dataclass that holds data only. `attach` calls it twice a step: ``before``, when gradients are
there and the weights are still old, and ``after``, when the optimizer has moved the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.conventions.step_decay import DecayTerms
from decaylab.decay.fused_kernel import Convention
from decaylab.decay.rows import rows_of, with_rows
from decaylab.errors import DecaylabError
from decaylab.schedules import DecaySchedule as DecaySchedule
from decaylab.schedules import decay_multiplier
from decaylab.tensors import sharding
from decaylab.tensors.foreach import multiply_

Scalar = float | Tensor


def is_sgd(group: dict[str, Any]) -> bool:
    """Whether a param group is one of SGD, whose momentum sums gradients (``m <- mu m + (1 - dampening) g``).

    Other optimizers with a ``momentum`` average them, or use it for something else; none of these has a dampening.
    """
    return "momentum" in group and "dampening" in group and "betas" not in group


@dataclass(slots=True)
class Part:
    """The parameters of one param group that have a gradient and share device and dtype.

    Attributes:
        group: The optimizer's param group.
        params: The parameters as the optimizer holds them.
        weights: Their tensors on this rank: the parameters themselves, or the local shards of a ``DTensor``.
        lr: The group's learning rate now, a number or a tensor as the user gave it.
        strength: Multiplier of the rule's decay schedule for this step.
        whole: Whether these are all parameters of the group, apart from those without a gradient.
        old: Copies of ``weights`` from before the update; filled only for rules that set ``keeps_old``.
        find_max_lr: Looks up the peak learning rate of the group.
        rows: For rules on touched rows, the indices of those rows for each of ``params``; ``weights`` and ``old`` are
            then copies of these rows. Empty for rules on whole weights.
    """

    group: dict[str, Any]
    params: list[Tensor]
    weights: list[Tensor]
    lr: Scalar
    strength: Scalar
    find_max_lr: Callable[[], float]
    whole: bool = False
    old: list[Tensor] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)

    @property
    def grads(self) -> list[Tensor]:
        """The gradients on this rank, in the order of ``weights`` and of their shape; sparse ones are made dense."""
        grads = [sharding.local(p.grad) for p in self.params if p.grad is not None]
        if self.rows:
            return [rows_of(grad, index) for grad, index in zip(grads, self.rows, strict=True)]
        return [grad if grad.layout is torch.strided else grad.to_dense() for grad in grads]

    def replace_grads(self, grads: list[Tensor]) -> None:
        """Give the parameters other gradients, in the order and of the shape of `grads`."""
        for place, (p, grad) in enumerate(zip(self.params, grads, strict=True)):
            if self.rows and p.grad is not None:
                p.grad = with_rows(p.grad, self.rows[place], grad)
            else:
                p.grad = sharding.like(p, grad)

    @property
    def sign(self) -> float:
        """-1 where the optimizer climbs along its gradients (``maximize``), else 1."""
        return -1.0 if self.group.get("maximize", False) else 1.0


@dataclass(slots=True)
class Step:
    """One optimizer step as a rule sees it.

    Attributes:
        optimizer: The optimizer that is stepping.
        parts: The rule's parameters that have a gradient.
        absent: The rule's parameters without one: a rule may read them and leaves them untouched.
        index: 1 for the first step after attaching.
        state: Tensors that a rule keeps for a parameter, by parameter and name.
        shared: Numbers that a rule keeps for all of its parameters together.
        scratch: What a rule hands from ``before`` to ``after``; forgotten after the step.
        kept: Memory of a weight's size for what a rule computes anew at every step, by parameter.
    """

    optimizer: Optimizer
    parts: list[Part]
    absent: list[Tensor]
    index: int
    state: dict[Tensor, dict[str, Tensor]]
    shared: dict[str, float]
    scratch: dict[str, Any] = field(default_factory=dict)
    kept: dict[Tensor, Tensor] = field(default_factory=dict)

    def room(self, part: Part) -> list[Tensor]:
        """Return memory for a tensor of the shape of each weight of ``part``; what it holds is of no meaning.

        On a CPU it is kept between steps, where fresh pages would cost more than the arithmetic.
        """
        if part.weights[0].device.type != "cpu":
            return [torch.empty_like(weight) for weight in part.weights]
        for p, weight in zip(part.params, part.weights, strict=True):
            found = self.kept.get(p)
            if found is None or found.shape != weight.shape or found.dtype != weight.dtype:
                self.kept[p] = torch.empty_like(weight)
        return [self.kept[p] for p in part.params]

    def column(self, part: Part, name: str) -> Tensor:
        """Return a stored number of every parameter of ``part`` as one vector."""
        return torch.stack([self.state[p][name] for p in part.params])

    def store_column(self, part: Part, name: str, values: Tensor) -> None:
        """Store a vector, one number for every parameter of ``part``."""
        for p, value in zip(part.params, values.unbind(), strict=True):
            self.state[p][name] = value


@dataclass(frozen=True)
class Rule:
    """Base of every rule: what it needs, and its two moments in a step.

    Attributes:
        edits_gradients: The rule adds to the gradient, so it must see it unscaled.
        keeps_old: The rule needs the weights from before the update; one copy of them is kept.
        norm_based: The rule reads norms of whole tensors, which a flattened shard does not have.
        native_convention: What a kernel must do with ``weight_decay`` to be able to do the rule: ``coupled`` or
            ``decoupled``, see `decaylab.decay.fused_kernel`. None where no kernel can.
        decays: The rule shrinks weights itself; two of these must not share a parameter.
        uses_lr: The rule multiplies by the learning rate, so a group must have one.
        by_entry: What happens to an entry depends on that entry alone, so that the rule can act on some rows of a
            weight and leave the others.
    """

    edits_gradients: ClassVar[bool] = False
    keeps_old: ClassVar[bool] = False
    norm_based: ClassVar[bool] = False
    native_convention: ClassVar[Convention | None] = None
    decays: ClassVar[bool] = True
    uses_lr: ClassVar[bool] = False
    by_entry: ClassVar[bool] = False

    @property
    def counts_steps(self) -> bool:
        """Whether what the rule does depends on the number of steps, so that no recorded step stands for all."""
        return getattr(self, "every", 1) != 1

    def strength(self, index: int, lr: Scalar, find_max_lr: Callable[[], float]) -> Scalar:
        """Return the multiplier of the rule's own schedule at step ``index`` (0 for the first after attaching)."""
        return 1.0

    def check(self, optimizer: Optimizer, part: Part) -> None:
        """Raise `DecaylabError` where the rule is not defined for this optimizer and param group.

        Args:
            optimizer: The optimizer.
            part: The group with the settings that it has now; its lists of parameters are empty.
        """

    def takes(self, param: Tensor) -> bool:
        """Whether the rule acts on a parameter of this shape at all."""
        return True

    def prepare(self, params: list[Tensor], state: dict[Tensor, dict[str, Tensor]], shared: dict[str, float]) -> None:
        """See parameters for the first time: remember what the rule needs of their initial weights."""

    def native_decay(self, part: Part, step: Step) -> Scalar | None:
        """Return the ``weight_decay`` with which a kernel of ``native_convention`` does this rule now, or None.

        Args:
            part: A part that is a whole param group.
            step: The step.
        """
        return None

    def penalty(self, step: Step) -> Scalar | None:
        """Return what a line search must see added to the loss; None for rules that are no penalty."""
        return None

    def decay_terms(self, part: Part) -> DecayTerms | None:
        """State what the next step takes from the weights of a group, without acting.

        Read by probes, by `decaylab.watch` and by the checks of settings. None states nothing: what the rule does is
        then measured from the weights.

        Args:
            part: The group with the settings that it has now; its lists of parameters are empty.
        """
        return None

    def before(self, step: Step) -> None:
        """Act when the gradients are ready and the weights are old."""

    def after(self, step: Step) -> None:
        """Act when the optimizer has moved the weights."""


@dataclass(frozen=True)
class DecayRule(Rule):
    """Base of the rules that have a coefficient ``weight_decay`` (lambda) and may have a schedule of their own for it.

    Attributes:
        weight_decay: lambda, not negative. Its meaning (per step, times lr, ...) is the rule's.
        schedule: Multiplies lambda along training, on top of what the rule makes of the learning rate; none by default.
        total_steps: Length of the run in optimizer steps, counted from attaching; most schedules need it.
    """

    weight_decay: float
    schedule: DecaySchedule | None = field(default=None, kw_only=True)
    total_steps: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.weight_decay < math.inf:
            raise DecaylabError(f"weight_decay must be a finite number of at least 0, got {self.weight_decay}")
        timed = self.schedule is not None and self.schedule.kind not in ("constant", "with_lr")
        if self.schedule is not None and timed and self.total_steps is None:
            raise DecaylabError(f"the decay schedule {self.schedule.kind} needs total_steps, the length of the run")
        if self.total_steps is not None and self.total_steps < 1:
            raise DecaylabError(f"total_steps must be at least 1, got {self.total_steps}")

    @property
    def counts_steps(self) -> bool:
        """A schedule of the rule's own counts them."""
        return self.schedule is not None and self.schedule.kind not in ("constant", "with_lr")

    def strength(self, index: int, lr: Scalar, find_max_lr: Callable[[], float]) -> Scalar:
        """Return what multiplies lambda at step ``index`` (0 for the first after attaching)."""
        if self.schedule is None:
            return 1.0
        if self.schedule.kind != "with_lr":
            return decay_multiplier(self.schedule, index, self.total_steps or 1)
        ratio = lr / find_max_lr()
        if isinstance(ratio, Tensor):
            return ratio.clamp(0, 1)
        return decay_multiplier(self.schedule, index, self.total_steps or 1, ratio)

    def _refuse_flip(self, c: Scalar) -> None:
        """Refuse to take the share c of a weight, where that is all of it or more."""
        if not isinstance(c, Tensor) and c >= 1:
            raise DecaylabError(
                f"{type(self).__name__} would take {c:.3g} times the weight away in one step, which erases or flips "
                f"it: lower weight_decay or the learning rate"
            )


@dataclass(frozen=True)
class ShrinkRule(DecayRule):
    """Base of the rules ``p <- p (1 - c_t)`` that act on the old weights, beside the optimizer's own update."""

    by_entry: ClassVar[bool] = True
    native_convention: ClassVar[Convention | None] = "decoupled"

    def shrink(self, part: Part, step: Step | None) -> Scalar:
        """Return ``c_t``, the share of the weight that this step takes away.

        ``step`` is None where the number is only asked for, outside of a step.
        """
        raise NotImplementedError

    def decay_terms(self, part: Part) -> DecayTerms | None:
        """State the share ``c_t``."""
        return DecayTerms(share=self.shrink(part, None))

    def check(self, optimizer: Optimizer, part: Part) -> None:
        """Refuse a decay that takes a whole weight or more in one step."""
        self._refuse_flip(self.shrink(part, None))

    def before(self, step: Step) -> None:
        """Multiply the weights by ``1 - c_t``."""
        for part in step.parts:
            c = self.shrink(part, step)
            self._refuse_flip(c)
            if isinstance(c, Tensor) or c != 0:
                multiply_(part.weights, 1 - c)
