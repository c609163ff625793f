"""Installing a decay rule on an optimizer that already exists.

By the optimizer's own hooks. Its class and its schedulers stay as they are; removing the handle leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, cast

from torch import Tensor
from torch.optim import Optimizer

from decaylab.conventions.step_decay import DecayTerms
from decaylab.decay.binding import Members
from decaylab.decay.effect import Effect
from decaylab.decay.idle_check import IdleCheck
from decaylab.decay.optimizer_copies import warn_when_copied
from decaylab.decay.optimizer_state import Checkpoint
from decaylab.decay.rows import Rows, check_rows
from decaylab.decay.rule import Part, Rule
from decaylab.decay.step_guard import guard_step
from decaylab.decay.step_work import StepWork
from decaylab.errors import DecaylabError
from decaylab.params.inner_optimizer import inner_optimizer, other_steps

_ATTRIBUTE, _STOPPED = "_decaylab_handles", "_decaylab_stopped_handles"
Choice = Iterable[Tensor] | Callable[[Tensor], bool]


def attach(
    optimizer: Optimizer, rule: Rule, params: Choice | None = None, *, native: bool = True, rows: Rows = "all"
) -> Handle:
    """Install a decay rule on an optimizer.

    From the next step on, the optimizer's update and the rule act together. The rule's state travels in the
    optimizer's ``state_dict``, whether that is loaded after attaching or before it. Several rules can be attached, also
    to different parameters of one optimizer; they act in the order of attaching. The same rule for the same parameters
    is attached once: the second time its handle is returned.

    Args:
        optimizer: Any ``torch.optim.Optimizer`` whose own ``weight_decay`` is 0 for these parameters; wrappers that
            hold one are taken off (accelerate, Lightning, SAM with its base optimizer).
        rule: A rule, such as ``Decoupled(0.1)`` or ``decay.build("decoupled", weight_decay=0.1)``.
        params: Parameters to act on, or a function that tells of a parameter whether to, also of those that join later.
            None takes every parameter of every group, also of groups added later, except groups with ``decay=False``
            and parameters that `decaylab.params.decay_groups` put into such a group.
        native: Let the optimizer's own kernel do the decay where it computes exactly this rule (no extra pass over the
            weights). The weights agree to the last bit for `L2` and `Decoupled`, to rounding for the others.
        rows: ``"all"``: a weight with a gradient decays as a whole, also the rows of an embedding that a sparse
            gradient has no entries for. ``"touched"``: of every weight only the rows (dimension 0) with an entry in
            the gradient that is there (sparse) or not zero (dense); for rules that look at one entry at a time.

    Returns:
        A handle; ``handle.remove()`` takes the rule off again.

    Raises:
        DecaylabError: The rule and the optimizer do not fit, the parameters would decay twice, or the optimizer is
            stepped by other methods than ``step``.

    Example:
        >>> import torch
        >>> from decaylab.decay import Decoupled, attach
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.5)
        >>> handle = attach(optimizer, Decoupled(weight_decay=0.2))
        >>> weight.grad = torch.zeros(2)
        >>> optimizer.step()
        >>> weight.detach()
        tensor([0.9000, 0.9000])
    """
    if not isinstance(rule, Rule):
        raise DecaylabError(f"attach takes a decay rule, got {type(rule).__name__}; see `decaylab rules` for the names")
    stepped = inner_optimizer(optimizer)
    others = other_steps(stepped)
    if others:
        raise DecaylabError(
            f"{type(stepped).__name__} moves the weights by {' and '.join(others)} too, where a rule sees nothing: "
            f"attach the rule to the optimizer that it steps, or use one with step() alone"
        )
    for handle in tuple(stepped.__dict__.get(_STOPPED, ())):
        handle.remove()
    chosen = params if params is None or callable(params) else list(params)
    for handle in handles(stepped):
        if handle.is_same(rule, chosen, check_rows(rows)):
            return handle
    return Handle(stepped, rule, chosen, native, check_rows(rows), outer=optimizer)


class Handle:
    """A rule that is installed on an optimizer; used in a ``with`` block it is taken off at the end.

    Attributes:
        rule: The rule.
        slot: Its name in the optimizer's ``state_dict``.
        restored: Whether its state came from a loaded ``state_dict``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        rule: Rule,
        chosen: list[Tensor] | Callable[[Tensor], bool] | None,
        native: bool,
        rows: Rows,
        outer: Any,
    ) -> None:
        self.rule, self._optimizer = rule, optimizer
        self._choice: dict[Tensor, None] | Callable[[Tensor], bool] | None = (
            dict.fromkeys(chosen) if isinstance(chosen, list) else chosen
        )
        others: list[Handle] = optimizer.__dict__.get(_ATTRIBUTE, [])
        same = sum(type(other.rule) is type(rule) for other in others)
        self.slot = type(rule).__name__.lower() + (f"-{same + 1}" if same else "")
        if isinstance(self._choice, dict):
            _refuse_missing(optimizer, self._choice)
        self._members = Members(
            optimizer,
            rule,
            self._choice.__contains__ if isinstance(self._choice, dict) else self._choice,
            lambda: [other._members for other in handles(optimizer) if other is not self],
            rows,
        )
        self._state = Checkpoint(self._members, self.slot, self.give_back, optimizer)
        self._work = StepWork(optimizer, self._members, native, self._state.show)
        optimizer.__dict__.setdefault(_ATTRIBUTE, []).append(self)
        self._step_hooks: list[Any] = [
            optimizer.register_step_pre_hook(self._work.pre_hook),
            optimizer.register_step_post_hook(self._work.post_hook),
        ]
        # A wrapper that is an optimizer itself saves states of its own, of the same groups.
        saving = [optimizer]
        if outer is not optimizer and isinstance(outer, Optimizer) and hasattr(outer, "_optimizer_step_pre_hooks"):
            saving.append(outer)
        self._save_hooks: list[Any] = [hook for each in saving for hook in self._state.register_saving(each)]
        self._load_hooks: list[Any] = [hook for each in saving for hook in self._state.register_loading(each)]
        guard_step(optimizer).on_error.append(self.give_back)
        warn_when_copied(optimizer, lambda: [handle._state for handle in handles(optimizer)])
        self._idle = IdleCheck(
            self._members.state, lambda: self._work.begun, f"{type(rule).__name__} on {type(optimizer).__name__}"
        )
        self._state.absorb()

    @property
    def steps(self) -> int:
        """Optimizer steps since attaching."""
        return self._members.steps

    @property
    def restored(self) -> bool:
        """Whether the rule goes on from a loaded state."""
        return self._state.restored

    def is_same(self, rule: Rule, chosen: list[Tensor] | Callable[[Tensor], bool] | None, rows: Rows) -> bool:
        """Whether this is what attaching such a rule would install."""
        choice = dict.fromkeys(chosen) if isinstance(chosen, list) else chosen
        if type(rule) is not type(self.rule) or rows != self._members.rows:
            return False
        try:
            if rule != self.rule:
                return False
        except (RuntimeError, ValueError):  # a rule of the user's own that holds tensors or arrays
            return False
        if isinstance(choice, dict) and isinstance(self._choice, dict):
            return choice.keys() == self._choice.keys()
        return choice == self._choice and not isinstance(choice, dict)

    def stop(self) -> None:
        """Take the rule off, but go on putting its state into states of the optimizer that are saved later."""
        self.give_back()
        self._idle.remove()
        for hook in (*self._step_hooks, *self._load_hooks):
            hook.remove()
        self._step_hooks, self._load_hooks = [], []
        listed: list[Handle] = self._optimizer.__dict__.get(_ATTRIBUTE, [])
        if self in listed:
            listed.remove(self)
            self._optimizer.__dict__.setdefault(_STOPPED, []).append(self)
        guard_step(self._optimizer).drop(on_error=self.give_back)

    def remove(self) -> None:
        """Take the rule off; the weights stay as they are."""
        self.stop()
        for hook in self._save_hooks:
            hook.remove()
        self._save_hooks = []
        self._state.hide()
        own = self._optimizer.__dict__
        if self in own.get(_STOPPED, ()):
            own[_STOPPED].remove(self)
        if not own.get(_STOPPED) and not own.get(_ATTRIBUTE):
            for name in (_STOPPED, _ATTRIBUTE, "__getstate__"):
                own.pop(name, None)

    def covers(self, group: dict[str, Any], param: Tensor) -> bool:
        """Whether the rule acts on ``param`` of ``group``."""
        return self._members.covers(group, param)

    def part(self, index: int, group: dict[str, Any]) -> Part:
        """Return a group with its settings of now, and no parameters: what a probe needs to know of a step."""
        return self._members.part(index, group)

    @property
    def label(self) -> str:
        """Name of the rule in words."""
        return type(self.rule).__name__

    def terms(self, index: int, group: dict[str, Any]) -> DecayTerms | None:
        """Return what the rule states of the next step, see `Rule.decay_terms`; None where it states nothing.

        Of a rule that acts on the touched rows alone, a share of the whole weight is not known before the step.

        Args:
            index: Number of the group.
            group: The group.
        """
        stated = self.rule.decay_terms(self.part(index, group))
        rows_alone = self._members.rows == "touched" and stated is not None and stated.target == "zero"
        return None if rows_alone else stated

    def measure_next_step(self) -> None:
        """Measure what the rule does in the next step; `effect` has it afterwards. Costs a copy of what it changes."""
        self._work.measure_next_step()

    @property
    def effect(self) -> Effect | None:
        """What the rule did in the last step, where that was measured; without what a kernel did for it."""
        return self._work.effect

    def give_back(self) -> None:
        """Put back what was changed for the time of a step."""
        self._work.give_back()

    def __enter__(self) -> Self:
        """Decay inside a ``with`` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the rule off."""
        self.remove()


def handles(optimizer: Optimizer) -> tuple[Handle, ...]:
    """Return what is attached to an optimizer, in the order of attaching; wrappers are taken off."""
    return cast("tuple[Handle, ...]", tuple(inner_optimizer(optimizer).__dict__.get(_ATTRIBUTE, ())))


def _refuse_missing(optimizer: Optimizer, chosen: dict[Tensor, None]) -> None:
    held = {p for group in optimizer.param_groups for p in group["params"]}
    missing = sum(p not in held for p in chosen)
    if missing:
        raise DecaylabError(f"{missing} of the given parameters are not in the optimizer: add them to it first")


def attached_to(optimizer: Optimizer) -> Sequence[Handle]:
    """Return the handles of an optimizer that is no wrapper, at once: asked at every step.

    Args:
        optimizer: What `decaylab.params.inner_optimizer.inner_optimizer` returned.
    """
    found: Sequence[Handle] = optimizer.__dict__.get(_ATTRIBUTE, ())
    return found
