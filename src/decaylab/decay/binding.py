"""The parameters that an installed rule acts on, with their settings and what the rule keeps for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.decay.fused_kernel import Loan
from decaylab.decay.learning_rate import Peaks, learning_rate
from decaylab.decay.rows import Rows
from decaylab.decay.rule import Part, Rule, Step
from decaylab.errors import DecaylabError
from decaylab.params.marks import group_mark, marked
from decaylab.tensors import sharding
from decaylab.tensors.foreach import by_kind


class Members:
    """The parameters of one rule on one optimizer, looked up anew for every step: groups come, go and change.

    Who belongs is kept by parameter. A group's mark ``decay`` counts while it is there; where it is gone (a loaded
    state of somebody else replaces the keys of groups) what was known of the parameter stays.

    Args:
        optimizer: The optimizer.
        rule: The rule.
        chosen: Whether the rule acts on a parameter; None leaves it to the marks, without any of which it does.
        others: Gives the members of the other rules on this optimizer.
        rows: Which rows of a weight the rule acts on.

    Attributes:
        steps: Optimizer steps since attaching.
        state: Tensors that the rule keeps for a parameter, by parameter and name.
        shared: Numbers that it keeps for all of them together.
        peaks: The peak learning rates of the groups.
        loans: What was changed in groups for the step at hand.
        rows: Which rows of a weight the rule acts on.

    Raises:
        DecaylabError: The rule and the optimizer do not fit, or the parameters would decay twice.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        rule: Rule,
        chosen: Callable[[Tensor], bool] | None,
        others: Callable[[], Sequence[Members]],
        rows: Rows = "all",
    ) -> None:
        self.rule, self.steps, self.rows = rule, 0, rows
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self.shared: dict[str, float] = {}
        self.peaks = Peaks(rule)
        self.loans: list[Loan] = []
        self._optimizer, self._chosen, self._others = optimizer, chosen, others
        self._known: dict[int, tuple[tuple[Any, ...], list[Tensor]]] = {}
        self._remembered: dict[Tensor, bool] = {}
        self._left_out: set[Tensor] = set()
        self._warned: set[tuple[str, int]] = set()
        self._changed = self._sharded = False
        self._meet(attaching=True)
        self.peaks.attaching = False

    def covers(self, group: dict[str, Any], param: Tensor) -> bool:
        """Whether the rule acts on ``param`` of ``group``."""
        chosen = self._chosen(param) if self._chosen is not None else self._by_mark(group, param)
        return bool(chosen) and param not in self._left_out and self.rule.takes(param)

    def _by_mark(self, group: dict[str, Any], param: Tensor) -> bool:
        mark = group_mark(group)
        if mark is None:
            mark = self._remembered.get(param)
        if mark is None:
            mark = marked(param)
        self._remembered[param] = mark is not False
        return mark is not False

    def look(self) -> list[list[Tensor]]:
        """Return the parameters of each group; those that are new are checked and shown to the rule first."""
        members = [self._covered(index, group) for index, group in enumerate(self._optimizer.param_groups)]
        if self._changed:
            self._meet(attaching=False)
            members = [self._covered(index, group) for index, group in enumerate(self._optimizer.param_groups)]
        return members

    def step(self) -> Step:
        """Sort the parameters into the parts of a step."""
        groups, members = self._optimizer.param_groups, self.look()
        parts: list[Part] = []
        absent: list[Tensor] = []
        for index, (group, covered) in enumerate(zip(groups, members, strict=True)):
            dense: list[Tensor] = []
            sparse: list[Tensor] = []
            for p in covered:
                grad = p.grad
                if grad is None:
                    absent.append(p)
                else:
                    (dense if grad.layout is torch.strided else sparse).append(p)
            if not (dense or sparse) or not self._set_aside_own_decay(index, group):
                continue
            kinds = by_kind(dense) if dense else []
            for params in [*kinds, *(by_kind(sparse) if sparse else [])]:
                part = self.part(index, group)
                part.params = params
                part.weights = [sharding.local(p) for p in params] if self._sharded else params
                # A kernel's own decay does not take sparse gradients, and it acts on all rows.
                alone = len(kinds) == 1 and not sparse and self.rows == "all"
                part.whole = alone and len(covered) == len(group["params"])
                parts.append(part)
        return Step(self._optimizer, parts, absent, self.steps + 1, self.state, self.shared)

    def part(self, index: int, group: dict[str, Any]) -> Part:
        """Return a group with its settings of now, and no parameters yet: what a probe needs to know of a step."""

        def find_max_lr() -> float:
            return self.peaks.find(index, group, first=self.steps == 0)

        lr = learning_rate(self._optimizer, index, self.rule)
        return Part(group, [], [], lr, self.rule.strength(self.steps, lr, find_max_lr), find_max_lr)

    def _covered(self, index: int, group: dict[str, Any]) -> list[Tensor]:
        """The parameters of a group that the rule acts on; worked out again only when the group has changed."""
        key = (group_mark(group), *map(id, group["params"]))
        known = self._known.get(index)
        if known is None or known[0] != key:
            known = self._known[index] = (key, [p for p in group["params"] if self.covers(group, p)])
            self._changed = True
        return known[1]

    @torch.no_grad()
    def _meet(self, attaching: bool) -> None:
        """Check groups, and show the rule the parameters that it has not seen yet.

        What does not fit is refused when the rule is attached. Later, inside somebody's step, it is left out and said.
        """
        new: list[Tensor] = []
        for index, group in enumerate(self._optimizer.param_groups):
            covered = self._covered(index, group)
            if not covered:
                continue
            fresh = [p for p in covered if p not in self.state]
            try:
                self.peaks.note(index, group)
                self._check_group(index, group, covered, attaching)
                if fresh and not attaching:
                    self._prepare(fresh)
            except DecaylabError as error:
                if attaching:
                    raise
                self._leave_out(index, fresh, error)
                continue
            new += fresh
        if attaching:
            if not new:
                if self.rule.norm_based:  # flattened parameters have no dimensions for it to take
                    sharding.refuse_flat([p for group in self._optimizer.param_groups for p in group["params"]])
                raise DecaylabError(
                    f"{type(self.rule).__name__} has no parameter to act on: the parameters are not of its kind, or "
                    f"all groups have decay=False"
                )
            self._prepare(new)
        self._changed = False

    def _prepare(self, new: list[Tensor]) -> None:
        self.state.update({p: {} for p in new})
        self._sharded = any(map(sharding.is_sharded, self.state))
        try:
            self.rule.prepare(new, self.state, self.shared)
        except DecaylabError:
            for p in new:
                del self.state[p]
            raise

    def _leave_out(self, index: int, params: list[Tensor], error: DecaylabError) -> None:
        self._left_out.update(params)
        self._known.pop(index, None)
        if params:
            self._warn(
                "left out",
                index,
                f"{type(self.rule).__name__} leaves {len(params)} parameters alone that joined group {index} later: "
                f"{error}",
            )

    def _warn(self, what: str, index: int, message: str) -> None:
        """Say something once for each group."""
        if (what, index) not in self._warned:
            self._warned.add((what, index))
            warnings.warn(message, stacklevel=2)

    def _check_group(self, index: int, group: dict[str, Any], covered: list[Tensor], attaching: bool) -> None:
        if attaching:
            self._refuse_own_decay(index, group)
        if any(p.is_complex() for p in covered):
            raise DecaylabError("decay rules are defined for real weights: a parameter is complex")
        if self.rule.norm_based:
            sharding.refuse_flat(covered)
        self._check_rows(covered)
        for other in self._others():
            if other.rule.decays and self.rule.decays:
                twice = sum(other.covers(group, p) for p in covered)
                if twice:
                    raise DecaylabError(
                        f"{twice} parameters already decay by {type(other.rule).__name__}: remove that rule first "
                        f"(decay.handles(optimizer) has its handle), or give both rules params of their own"
                    )
        part = self.part(index, group)
        if self.rule.uses_lr:
            _ = part.lr * 1.0  # one that the optimizer chooses by itself refuses
        self.rule.check(self._optimizer, part)

    def _check_rows(self, covered: list[Tensor]) -> None:
        name = type(self.rule).__name__
        if self.rows == "touched":
            if not self.rule.by_entry:
                raise DecaylabError(f"{name} looks at whole tensors, so it cannot act on touched rows: use rows='all'")
            if any(map(sharding.is_sharded, covered)) or any(p.dim() == 0 for p in covered):
                raise DecaylabError("rows='touched' needs whole weights with rows: use rows='all' for the others")
        elif self.rule.edits_gradients and isinstance(self._optimizer, torch.optim.SparseAdam):
            raise DecaylabError(
                f"{name} on all rows makes gradients dense, which SparseAdam does not take: give rows='touched', or "
                f"use Decoupled"
            )

    def _refuse_own_decay(self, index: int, group: dict[str, Any]) -> None:
        own = group.get("weight_decay") or 0
        if own == 0:
            return
        name, made = type(self._optimizer).__name__, self._optimizer.defaults.get("weight_decay")
        if made is not None and not isinstance(made, Tensor) and made == 0:
            raise DecaylabError(
                f"{name} was made with weight_decay=0, and group {index} has {float(own):g} now (a loaded state brings "
                f"its own), so its weights would decay twice: attach first and load then, or set "
                f"optimizer.param_groups[{index}]['weight_decay'] = 0"
            )
        raise DecaylabError(
            f"{name} already has weight_decay={float(own):g} in group {index}, so its weights would decay twice: give "
            f"the optimizer weight_decay=0"
        )

    def _set_aside_own_decay(self, index: int, group: dict[str, Any]) -> bool:
        """Keep a decay that a group was given after attaching from acting beside the rule's; whether the rule may act.

        A schedule of ``weight_decay`` or a group that joined writes it. Where rules have the whole group, it is 0 for
        the time of the step; where they have a part of it, the group's own decay goes on and the rule stands back.
        """
        own = group.get("weight_decay") or 0
        if not self.rule.decays or isinstance(own, Tensor) or own == 0:
            return True
        deciding = [other for other in (self, *self._others()) if other.rule.decays]
        if any(loan.group is group for other in deciding for loan in other.loans):
            return True  # what it reads now is another rule's
        name, whole = type(self.rule).__name__, all(any(o.covers(group, p) for o in deciding) for p in group["params"])
        said = f"group {index} of {type(self._optimizer).__name__} was given weight_decay={own:g} after attaching"
        if whole:
            self.loans.append(Loan(group, {"weight_decay": type(own)(0)}))
            self._warn(
                "own", index, f"{said}: it is left out while {name} decays the group, so that nothing decays twice"
            )
        else:
            self._warn("own", index, f"{said}, which decays all of it: {name} stands back there, set it to 0 again")
        return whole
