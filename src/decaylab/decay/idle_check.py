"""A look at whether an optimizer is stepped by ``step()``, where a rule acts, or by a method that nobody knows of."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from decaylab.tensors.sharding import local

_ENTRIES, _MOVES = 16, 3


class IdleCheck:
    """Warns once when weights move between backward passes though the optimizer's ``step()`` was never called.

    It hangs on one parameter and goes with the first step. Fewer moves than three may be a perturbation inside a step
    (SAM's first half) or loaded weights.

    Args:
        params: The rule's parameters.
        begun: Tells whether the optimizer's step has ever begun.
        words: Whose rule it is, for the warning.
    """

    def __init__(self, params: Iterable[Tensor], begun: Callable[[], bool], words: str) -> None:
        self._begun, self._words = begun, words
        self._last: Tensor | None = None
        self._moves = 0
        # The last one is near the output: it is trained also where the first layers are frozen.
        trained = [p for p in params if p.requires_grad and p.is_leaf and p.numel()]
        self._hook = trained[-1].register_post_accumulate_grad_hook(self._look) if trained else None

    def remove(self) -> None:
        """Stop looking."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        self._last = None

    @torch.no_grad()
    def _look(self, param: Tensor) -> None:
        if self._begun():
            self.remove()
            return
        if param.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        seen = local(param).detach().flatten()[:_ENTRIES].clone()
        if self._last is not None and not torch.equal(seen, self._last):
            self._moves += 1
        self._last = seen
        if self._moves >= _MOVES:
            self.remove()
            warnings.warn(
                f"{self._words} has not acted: the weights moved {_MOVES} times, but the optimizer's step() was never "
                f"called; it is stepped by another method, so attach to the optimizer whose step() is called",
                stacklevel=2,
            )
