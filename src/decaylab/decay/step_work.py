"""The work of an installed rule around one optimizer step: before it, in its closure, after it, and when it fails."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.decay.binding import Members
from decaylab.decay.effect import Effect
from decaylab.decay.fused_kernel import lend
from decaylab.decay.rows import touched
from decaylab.decay.rule import Part, Step
from decaylab.errors import DecaylabError
from decaylab.params.nested_step import is_nested
from decaylab.tensors.sharding import local

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _eager(method: _Method) -> _Method:
    """Leave a method out of a compiled step: a graph break before it and after it."""
    disable: Any = torch.compiler.disable
    return cast(_Method, disable(method))


class StepWork:
    """Calls a rule's two moments around the steps of an optimizer.

    Args:
        optimizer: The optimizer.
        members: The rule with its parameters.
        native: Let the optimizer's own kernel decay where it computes exactly the rule.
        after_step: Called after every step that the rule saw, with whether that step was compiled.

    Attributes:
        begun: Whether any step has begun.
        effect: What the rule did in the last step, where that was measured.
    """

    def __init__(
        self, optimizer: Optimizer, members: Members, native: bool, after_step: Callable[[bool], None]
    ) -> None:
        self.rule, self._optimizer, self._members = members.rule, optimizer, members
        self._use_native, self._after_step = native, after_step
        self.begun, self._measures = False, False
        self.effect: Effect | None = None
        self._old: dict[Tensor, Tensor] = {}
        self._kept: dict[Tensor, Tensor] = {}
        self._user_grads: list[tuple[Tensor, Tensor]] = []
        self._step: Step | None = None
        self._awaits_closure = self._compiling = self._starts_state = False

    def measure_next_step(self) -> None:
        """Measure what the rule does in the step that comes."""
        self._measures = True

    def pre_hook(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """For ``register_step_pre_hook``."""
        if is_nested(optimizer):
            return None
        return self._begin(args, kwargs, torch.compiler.is_compiling())

    def post_hook(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """For ``register_step_post_hook``."""
        if not is_nested(optimizer):
            self._end()

    def give_back(self) -> None:
        """Put back what was changed for the time of a step; nothing where it is back already."""
        for loan in reversed(self._members.loans):
            loan.give_back()
        self._members.loans = []
        self._restore_grads()

    @_eager
    def _begin(self, args: Any, kwargs: Any, compiling: bool) -> tuple[Any, Any] | None:
        self.give_back()  # in case the last step was left by an exception that nobody saw
        self._step, self._compiling = None, compiling
        self.effect, self._measures = Effect() if self._measures else None, False
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        self._awaits_closure = closure is not None
        self._starts_state = starts_state(self._optimizer, args, kwargs)
        if self._starts_state:
            return None
        self.begun = True
        if closure is None:
            self._before()
            return None

        def evaluated() -> Any:
            # Gradients exist only when the user's closure has run, and LBFGS runs it several times a step.
            self._restore_grads()
            loss = closure()
            return self._after_closure(loss)

        if len(args) > 1:
            return (args[0], evaluated, *args[2:]), kwargs
        return args, {**kwargs, "closure": evaluated}

    @torch.no_grad()
    def _after_closure(self, loss: Any) -> Any:
        self._awaits_closure = False
        if self._step is None:
            self._before()
        elif self.rule.edits_gradients:
            self._edit_grads(self._step)
        if self._step is not None and isinstance(self._optimizer, torch.optim.LBFGS):
            penalty = self.rule.penalty(self._step)
            return loss if penalty is None else loss + penalty
        return loss

    @torch.no_grad()
    def _before(self) -> None:
        if self._skips():
            return
        step = self._step = self._members.step()
        self._refuse_capture(step)
        if self._use_native and not self._compiling:
            step.parts = [part for part in step.parts if not self._lend(part, step)]
        if self._members.rows == "touched":
            step.parts = [part for part in step.parts if _take_rows(part)]
        step.kept = self._kept
        if self.rule.keeps_old:
            self._copy_old(step)
        if self.rule.edits_gradients:
            self._edit_grads(step)
        else:
            with nullcontext() if self.effect is None else self.effect.of_weights(step):
                self.rule.before(step)
        _put_rows(step)

    @_eager
    @torch.no_grad()
    def _end(self) -> None:
        self.give_back()
        step, self._step = self._step, None
        if self._awaits_closure:
            raise DecaylabError(
                f"{type(self._optimizer).__name__} did not call its closure, so the decay rule saw no gradients: "
                f"compute them before the step and call step() without a closure"
            )
        if step is not None:
            for part in step.parts:
                if part.rows:
                    part.weights = _rows_now(part)
            with nullcontext() if self.effect is None else self.effect.of_weights(step):
                self.rule.after(step)
            _put_rows(step)
            self._members.steps += 1
        if step is not None or self._starts_state:
            self._after_step(self._compiling)

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
        if convention is None or not part.whole or part.group.get("lr") is None:
            return False
        value = self.rule.native_decay(part, step)
        loan = None
        if value is not None and not isinstance(value, Tensor):
            loan = lend(self._optimizer, part.group, convention, value)
        if loan is not None:
            self._members.loans.append(loan)
        return loan is not None

    def _edit_grads(self, step: Step) -> None:
        if step.parts and getattr(self._optimizer, "grad_scale", None) is not None:
            raise DecaylabError(
                f"{type(self.rule).__name__} edits gradients, and a fused optimizer under a GradScaler only has scaled "
                f"ones: call scaler.unscale_(optimizer) before the step, or build the optimizer with fused=False"
            )
        self._user_grads = [(p, p.grad) for part in step.parts for p in part.params if p.grad is not None]
        with nullcontext() if self.effect is None else self.effect.of_gradients(step):
            self.rule.before(step)

    def _restore_grads(self) -> None:
        for p, grad in self._user_grads:
            p.grad = grad
        self._user_grads = []

    def _copy_old(self, step: Step) -> None:
        for part in step.parts:
            if part.rows:
                part.old = [weight.clone() for weight in part.weights]
                continue
            for p, weight in zip(part.params, part.weights, strict=True):
                kept = self._old.get(p)
                if kept is None or kept.shape != weight.shape or kept.dtype != weight.dtype:
                    self._old[p] = torch.empty_like(weight)
            part.old = [self._old[p] for p in part.params]
            torch._foreach_copy_(part.old, part.weights)


def starts_state(optimizer: Optimizer, args: Any, kwargs: Any) -> bool:
    """Whether a step is no step of training, but one by which torch.distributed.checkpoint creates optimizer states.

    It has no state yet, a learning rate of 0 in every group, gradients that are all 0, and ``closure=None`` by name.
    """
    if optimizer.state or len(args) > 1 or "closure" not in kwargs or kwargs["closure"] is not None:
        return False
    if any(float(group.get("lr") or 0) != 0 for group in optimizer.param_groups):
        return False
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return bool(grads) and not any(bool(local(grad).any()) for grad in grads)


def _take_rows(part: Part) -> bool:
    """Put copies of the rows that have a gradient in the place of the weights; whether there is one."""
    part.rows = [touched(p.grad) for p in part.params if p.grad is not None]
    part.weights = _rows_now(part)
    return any(index.numel() for index in part.rows)


def _rows_now(part: Part) -> list[Tensor]:
    return [p.detach().index_select(0, index) for p, index in zip(part.params, part.rows, strict=True)]


def _put_rows(step: Step) -> None:
    for part in step.parts:
        for p, index, rows in zip(part.params, part.rows, part.weights, strict=False):
            p.detach().index_copy_(0, index, rows)
