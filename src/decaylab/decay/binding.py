"""Which parameters does an installed rule act on, with which settings, and what does it keep for them?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.decay.fused_kernel import Loan
from decaylab.decay.rule import Part, Rule, Step
from decaylab.errors import DecaylabError
from decaylab.tensors import sharding
from decaylab.tensors.foreach import by_kind


class Members:
    """The parameters of one rule on one optimizer, looked up anew for every step: groups come, go and change.

    Args:
        optimizer: The optimizer.
        rule: The rule.
        given: The parameters to act on; None takes those of every group, except groups with ``decay=False``.
        others: Gives the members of the other rules on this optimizer.

    Attributes:
        steps: Optimizer steps since attaching.
        state: Tensors that the rule keeps for a parameter, by parameter and name.
        shared: Numbers that it keeps for all of them together.
        max_lr: The peak learning rate of a group, by its index.
        loans: What the rule has lent to the kernels of groups for the step at hand.

    Raises:
        DecaylabError: The rule and the optimizer do not fit, or the parameters would decay twice.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        rule: Rule,
        given: list[Tensor] | None,
        others: Callable[[], Sequence[Members]],
    ) -> None:
        self.rule, self.steps = rule, 0
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self.shared: dict[str, float] = {}
        self.max_lr: dict[int, float] = {}
        self.loans: list[Loan] = []
        self._optimizer, self._others = optimizer, others
        self._given = None if given is None else dict.fromkeys(given)
        self._known: dict[int, tuple[tuple[Any, ...], list[Tensor]]] = {}
        self._changed = self._sharded = False
        if self._given is not None:
            held = {p for group in optimizer.param_groups for p in group["params"]}
            missing = sum(p not in held for p in self._given)
            if missing:
                raise DecaylabError(f"{missing} of the given parameters are not in the optimizer: add them to it first")
        self._meet()

    def covers(self, group: dict[str, Any], param: Tensor) -> bool:
        """Whether the rule acts on ``param`` of ``group``."""
        chosen = group.get("decay", True) if self._given is None else param in self._given
        return bool(chosen) and self.rule.takes(param)

    def look(self) -> list[list[Tensor]]:
        """Return the parameters of each group; those that are new are checked and shown to the rule first."""
        members = [self._covered(index, group) for index, group in enumerate(self._optimizer.param_groups)]
        if self._changed:
            self._meet()
        return members

    def step(self) -> Step:
        """Sort the parameters into the parts of a step."""
        groups, members = self._optimizer.param_groups, self.look()
        parts: list[Part] = []
        absent: list[Tensor] = []
        for index, (group, covered) in enumerate(zip(groups, members, strict=True)):
            present = [p for p in covered if p.grad is not None]
            if len(present) < len(covered):
                absent += [p for p in covered if p.grad is None]
            if present:
                self._refuse_own_decay(index, group)
            kinds = by_kind(present)
            for params in kinds:
                part = self.part(index, group)
                part.params = params
                part.weights = [sharding.local(p) for p in params] if self._sharded else params
                part.whole = len(kinds) == 1 and len(covered) == len(group["params"])
                parts.append(part)
        return Step(self._optimizer, parts, absent, self.steps + 1, self.state, self.shared)

    def part(self, index: int, group: dict[str, Any]) -> Part:
        """Return a group with its settings of now, and no parameters yet: what a probe needs to know of a step."""

        def find_max_lr() -> float:
            return self._find_max_lr(index)

        strength = self.rule.strength(self.steps, group["lr"], find_max_lr)
        return Part(group, [], [], group["lr"], strength, find_max_lr)

    def _covered(self, index: int, group: dict[str, Any]) -> list[Tensor]:
        """The parameters of a group that the rule acts on; worked out again only when the group has changed."""
        key = (group.get("decay", True), *map(id, group["params"]))
        known = self._known.get(index)
        if known is None or known[0] != key:
            known = self._known[index] = (key, [p for p in group["params"] if self.covers(group, p)])
            self._changed = True
        return known[1]

    @torch.no_grad()
    def _meet(self) -> None:
        """Check groups, and show the rule the parameters that it has not seen yet."""
        new: list[Tensor] = []
        for index, group in enumerate(self._optimizer.param_groups):
            covered = self._covered(index, group)
            if not covered:
                continue
            if index not in self.max_lr:
                self.max_lr[index] = float(group.get("initial_lr", group["lr"]))
            self._check_group(index, group, covered)
            new += [p for p in covered if p not in self.state]
        if not new and not self.state:
            raise DecaylabError(
                f"{type(self.rule).__name__} has no parameter to act on: the parameters are not of its kind, or all "
                f"groups have decay=False"
            )
        self.state.update({p: {} for p in new})
        self._sharded = any(map(sharding.is_sharded, self.state))
        if new:
            self.rule.prepare(new, self.state, self.shared)
        self._changed = False

    def _check_group(self, index: int, group: dict[str, Any], covered: list[Tensor]) -> None:
        self._refuse_own_decay(index, group)
        if any(p.is_complex() for p in covered):
            raise DecaylabError("decay rules are defined for real weights: a parameter is complex")
        if self.rule.norm_based:
            sharding.refuse_flat(covered)
        for other in self._others():
            if other.rule.decays and self.rule.decays:
                twice = sum(other.covers(group, p) for p in covered)
                if twice:
                    raise DecaylabError(
                        f"{twice} parameters already decay by {type(other.rule).__name__}: remove that rule first, or "
                        f"give both rules params of their own"
                    )
        self.rule.check(self._optimizer, self.part(index, group))

    def _refuse_own_decay(self, index: int, group: dict[str, Any]) -> None:
        if any(loan.group is group for other in self._others() for loan in other.loans):
            return  # what it reads now is another rule's
        own = group.get("weight_decay", 0)
        if not isinstance(own, Tensor) and own != 0:
            raise DecaylabError(
                f"{type(self._optimizer).__name__} already has weight_decay={own:g} in group {index}, so its weights "
                f"would decay twice: give the optimizer weight_decay=0"
            )

    def _find_max_lr(self, index: int) -> float:
        """Return the peak learning rate of a group: the rule's, the scheduler's, or the one at attaching.

        Infinity while that is 0, like the learning rate: whatever share of the peak it is, nothing decays.
        """
        group = self._optimizer.param_groups[index]
        given = getattr(self.rule, "max_lr", None)
        peak = group.get("max_lr", group.get("initial_lr", self.max_lr[index])) if given is None else given
        if isinstance(peak, Tensor):
            peak = float(peak) if self.steps == 0 else self.max_lr[index]  # one host sync, not one a step
        peak = self.max_lr[index] = float(peak)
        if isinstance(group["lr"], Tensor) and peak == 0:  # what it is later would have to be asked of the device
            raise DecaylabError("the learning rate is 0 when the rule is attached: give the rule max_lr, its peak")
        if not isinstance(group["lr"], Tensor) and group["lr"] > peak * (1 + 1e-6):
            raise DecaylabError(
                f"the learning rate {group['lr']:g} is above max_lr {peak:g}, the peak that this rule divides by: give "
                f"the rule max_lr"
            )
        return peak or math.inf
