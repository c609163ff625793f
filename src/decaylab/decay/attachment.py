"""How is a decay rule installed on an optimizer that already exists?

By the optimizer's own step hooks. The optimizer, its class and its schedulers stay as they are; removing the handle
leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.decay.binding import Members
from decaylab.decay.fused_kernel import lend
from decaylab.decay.optimizer_state import Checkpoint
from decaylab.decay.rule import Part, Rule, Step
from decaylab.errors import DecaylabError

_ATTRIBUTE = "_decaylab_handles"
_Method = TypeVar("_Method", bound=Callable[..., Any])


def _eager(method: _Method) -> _Method:
    """Leave a method out of a compiled step: a graph break before it and after it."""
    disable: Any = torch.compiler.disable
    return cast(_Method, disable(method))


def attach(optimizer: Optimizer, rule: Rule, params: Iterable[Tensor] | None = None, *, native: bool = True) -> Handle:
    """Install a decay rule on an optimizer.

    From the next step on, the optimizer's update and the rule act together. The rule's state travels in the
    optimizer's ``state_dict``: attach first, then load. Several rules can be attached, also to different parameters of
    one optimizer; they act in the order of attaching.

    Args:
        optimizer: Any ``torch.optim.Optimizer`` whose own ``weight_decay`` is 0 for these parameters.
        rule: A rule, such as ``Decoupled(0.1)`` or ``decay.build("decoupled", weight_decay=0.1)``.
        params: Parameters to act on. None takes every parameter of every group, also of groups added later, except
            groups with ``decay=False``.
        native: Let the optimizer's own kernel do the decay where it computes exactly this rule (no extra pass over the
            weights). The weights agree to the last bit for `L2` and `Decoupled`, to rounding for the others.

    Returns:
        A handle; ``handle.remove()`` takes the rule off again.

    Raises:
        DecaylabError: The rule and the optimizer do not fit, or the parameters would decay twice.

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
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        raise DecaylabError(
            f"attach takes a torch.optim.Optimizer, got {type(optimizer).__name__}; unwrap it first if it wraps one"
        )
    return Handle(optimizer, rule, None if params is None else list(params), native)


class Handle:
    """A rule that is installed on an optimizer.

    Attributes:
        rule: The rule.
        slot: Its name in the optimizer's ``state_dict``.
    """

    def __init__(self, optimizer: Optimizer, rule: Rule, params: list[Tensor] | None, native: bool) -> None:
        self.rule = rule
        self._optimizer = optimizer
        self._use_native = native
        self._old: dict[Tensor, Tensor] = {}
        self._user_grads: list[tuple[Tensor, Tensor]] = []
        self._step: Step | None = None
        self._awaits_closure = False

        others: list[Handle] = optimizer.__dict__.setdefault(_ATTRIBUTE, [])
        self._others = others
        same = sum(type(other.rule) is type(rule) for other in others)
        self.slot = type(rule).__name__.lower() + (f"-{same + 1}" if same else "")
        self._members = Members(
            optimizer, rule, params, lambda: [other._members for other in others if other is not self]
        )
        others.append(self)
        self._hooks: list[Any] = [
            optimizer.register_step_pre_hook(self._pre_step),
            optimizer.register_step_post_hook(self._post_step),
            *Checkpoint(self._members, self.slot, self._give_back).register(optimizer),
        ]

    @property
    def steps(self) -> int:
        """Optimizer steps since attaching."""
        return self._members.steps

    def remove(self) -> None:
        """Take the rule off; the weights stay as they are."""
        self._give_back()
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self in self._others:
            self._others.remove(self)

    def covers(self, group: dict[str, Any], param: Tensor) -> bool:
        """Whether the rule acts on ``param`` of ``group``."""
        return self._members.covers(group, param)

    def part(self, index: int, group: dict[str, Any]) -> Part:
        """Return a group with its settings of now, and no parameters: what a probe needs to know of a step."""
        return self._members.part(index, group)

    def _pre_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        return self._begin(args, kwargs, torch.compiler.is_compiling())

    def _post_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._end()

    @_eager
    def _begin(self, args: Any, kwargs: Any, compiling: bool) -> tuple[Any, Any] | None:
        self._give_back()  # in case the last step was left by an exception
        self._step = None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        self._awaits_closure = closure is not None
        if closure is None:
            self._before(compiling)
            return None

        def evaluated() -> Any:
            # Gradients exist only when the user's closure has run, and LBFGS runs it several times a step.
            self._restore_grads()
            loss = closure()
            return self._after_closure(loss, compiling)

        if len(args) > 1:
            return (args[0], evaluated, *args[2:]), kwargs
        return args, {**kwargs, "closure": evaluated}

    @torch.no_grad()
    def _after_closure(self, loss: Any, compiling: bool) -> Any:
        self._awaits_closure = False
        if self._step is None:
            self._before(compiling)
        elif self.rule.edits_gradients:
            self._edit_grads(self._step)
        if self._step is not None and isinstance(self._optimizer, torch.optim.LBFGS):
            penalty = self.rule.penalty(self._step)
            return loss if penalty is None else loss + penalty
        return loss

    @torch.no_grad()
    def _before(self, compiling: bool) -> None:
        if self._skips():
            return
        step = self._step = self._members.step()
        self._refuse_capture(step)
        if self._use_native and not compiling:
            step.parts = [part for part in step.parts if not self._lend(part, step)]
        if self.rule.keeps_old:
            self._copy_old(step)
        if self.rule.edits_gradients:
            self._edit_grads(step)
        else:
            self.rule.before(step)

    @_eager
    @torch.no_grad()
    def _end(self) -> None:
        self._give_back()
        step, self._step = self._step, None
        if self._awaits_closure:
            raise DecaylabError(
                f"{type(self._optimizer).__name__} did not call its closure, so the decay rule saw no gradients: "
                f"compute them before the step and call step() without a closure"
            )
        if step is not None:
            self.rule.after(step)
            self._members.steps += 1

    def _refuse_capture(self, step: Step) -> None:
        """A CUDA graph replays the numbers of the step that it recorded: refuse rules whose numbers change by step."""
        on_gpu = any(part.weights[0].is_cuda for part in step.parts)
        if on_gpu and torch.cuda.is_current_stream_capturing() and self.rule.counts_steps:
            raise DecaylabError(
                f"{type(self.rule).__name__} with these options counts steps, which a CUDA graph would freeze: leave "
                f"the optimizer's step out of the graph"
            )

    def _skips(self) -> bool:
        """Whether a fused step under a gradient scaler will leave the weights alone because of an overflow."""
        found = getattr(self._optimizer, "found_inf", None)
        return found is not None and bool(found)

    def _lend(self, part: Part, step: Step) -> bool:
        """Let the optimizer's kernel decay this part, where it has the rule and the whole group is the rule's."""
        convention = self.rule.native_convention
        if convention is None or not part.whole:
            return False
        value = self.rule.native_decay(part, step)
        loan = None
        if value is not None and not isinstance(value, Tensor):
            loan = lend(self._optimizer, part.group, convention, value)
        if loan is not None:
            self._members.loans.append(loan)
        return loan is not None

    def _give_back(self) -> None:
        for loan in self._members.loans:
            loan.give_back()
        self._members.loans = []
        self._restore_grads()

    def _edit_grads(self, step: Step) -> None:
        if step.parts and getattr(self._optimizer, "grad_scale", None) is not None:
            raise DecaylabError(
                f"{type(self.rule).__name__} edits gradients, and a fused optimizer under a GradScaler only has scaled "
                f"ones: call scaler.unscale_(optimizer) before the step, or build the optimizer with fused=False"
            )
        self._user_grads = [(p, p.grad) for part in step.parts for p in part.params if p.grad is not None]
        self.rule.before(step)

    def _restore_grads(self) -> None:
        for p, grad in self._user_grads:
            p.grad = grad
        self._user_grads = []

    def _copy_old(self, step: Step) -> None:
        for part in step.parts:
            for p, weight in zip(part.params, part.weights, strict=True):
                kept = self._old.get(p)
                if kept is None or kept.shape != weight.shape or kept.dtype != weight.dtype:
                    self._old[p] = torch.empty_like(weight)
            part.old = [self._old[p] for p in part.params]
            torch._foreach_copy_(part.old, part.weights)


def handles(optimizer: Optimizer) -> tuple[Handle, ...]:
    """Return what is attached to an optimizer, in the order of attaching."""
    return tuple(optimizer.__dict__.get(_ATTRIBUTE, ()))
