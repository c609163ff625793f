"""A ``step`` of one optimizer object that says when it begins, and when it is left by an exception.

torch's step hooks are called before a step and after one that succeeds. What was changed for the time of a step has to
be put back also where a kernel fails, so the object's own ``step`` is wrapped; its class stays as it is.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

_ATTRIBUTE = "_decaylab_step_guard"


class StepGuard:
    """Calls functions around the step of an optimizer; one an optimizer, see `guard_step`.

    Attributes:
        before: Called before the optimizer's hooks.
        on_error: Called when the step is left by an exception.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.before: list[Callable[[], None]] = []
        self.on_error: list[Callable[[], None]] = []
        self._optimizer = optimizer
        inside: Any = optimizer.step
        self._step = _wrapped(self, inside)
        self._was_own = "step" in optimizer.__dict__
        self._inside = inside
        optimizer.step = self._step  # type: ignore[method-assign]
        optimizer.__dict__[_ATTRIBUTE] = self

    def drop(self, before: Callable[[], None] | None = None, on_error: Callable[[], None] | None = None) -> None:
        """Call functions no more; with the last one the wrapper goes too, unless somebody has wrapped it since."""
        if before in self.before:
            self.before.remove(before)
        if on_error in self.on_error:
            self.on_error.remove(on_error)
        if self.before or self.on_error:
            return
        if self._optimizer.__dict__.get(_ATTRIBUTE) is self and self._optimizer.__dict__.get("step") is self._step:
            del self._optimizer.__dict__[_ATTRIBUTE]
            if self._was_own:
                self._optimizer.step = self._inside
            else:
                del self._optimizer.__dict__["step"]


def guard_step(optimizer: Optimizer) -> StepGuard:
    """Return the guard of an optimizer, made on first use."""
    found: StepGuard | None = optimizer.__dict__.get(_ATTRIBUTE)
    return StepGuard(optimizer) if found is None else found


def _wrapped(guard: StepGuard, inside: Any) -> Any:
    bound = isinstance(inside, types.MethodType)  # a scheduler's wrapper is a plain function
    function: Callable[..., Any] = inside.__func__ if bound else inside

    @functools.wraps(function)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        for call in tuple(guard.before):
            call()
        try:
            return function(self, *args, **kwargs) if bound else function(*args, **kwargs)
        except BaseException:
            for call in tuple(guard.on_error):
                call()
            raise

    # Its own frame is not compiled; what it calls is. Schedulers look for __func__, so it is a bound method.
    return types.MethodType(torch.compiler.disable(step, recursive=False), guard._optimizer)
