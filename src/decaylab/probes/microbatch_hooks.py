"""Hooks that see the gradient of every backward pass of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from decaylab.tensors.reduce import entries, tensor_norms


@dataclass(frozen=True, eq=False)
class Microbatches:
    """What the hooks saw of the backward passes of one step.

    Attributes:
        count: k, the number of backward passes.
        squares: Sum over the passes of ``|g_i|^2`` by parameter, shape (P,), of the gradients as they were accumulated.
        total_squares: ``|sum_i g_i|^2`` by parameter, shape (P,), on this process, before unscaling and clipping.
    """

    count: int
    squares: Tensor
    total_squares: Tensor


class MicrobatchHooks:
    """Hooks on parameters that see the gradient of each backward pass before it is added to the others."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        """Remember the parameters; nothing is hooked before `arm`."""
        self._parameters = list(parameters.values())
        self._handles: list[RemovableHandle] = []
        self._squares: list[list[Tensor]] = []
        self._totals: list[Tensor | None] = []
        self._incoming: dict[int, tuple[bool, Tensor, Tensor]] = {}

    def arm(self) -> None:
        """Start to listen."""
        self.disarm()
        self._squares = [[] for _ in self._parameters]
        self._totals = [None for _ in self._parameters]
        for i, p in enumerate(self._parameters):
            self._handles.append(p.register_hook(self._before_adding(i, p)))
            self._handles.append(p.register_post_accumulate_grad_hook(self._after_adding(i)))

    def disarm(self) -> None:
        """Stop to listen."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._incoming = [], {}

    def _before_adding(self, i: int, parameter: Tensor) -> Callable[[Tensor], None]:
        def measure(gradient: Tensor) -> None:
            square = tensor_norms([entries(gradient)])[0].square()
            earlier = parameter.grad
            total = square
            if earlier is not None:
                total = tensor_norms([entries(earlier.detach() + gradient.detach())])[0].square()
            self._incoming[i] = (earlier is None, square, total)

        return measure

    def _after_adding(self, i: int) -> Callable[[Tensor], None]:
        # Only here is it certain that the gradient was added: torch.autograd.grad runs the other hook too.
        def count(_: Tensor) -> None:
            if i not in self._incoming:  # fully_shard adds gradients without autograd: nothing was seen
                return
            first, square, total = self._incoming.pop(i)
            if first:  # the first pass since zero_grad, also after a step that was called off
                self._squares[i].clear()
            self._squares[i].append(square)
            self._totals[i] = total

        return count

    def seen(self) -> Microbatches | None:
        """Return what was seen since `arm`; None without a backward pass."""
        count = max((len(squares) for squares in self._squares), default=0)
        if not count:
            return None
        device = self._parameters[0].device
        some = next(s[0] for s in self._squares if s)
        zero = torch.zeros((), dtype=some.dtype, device=device)
        squares = [torch.stack(s).sum().to(device) if s else zero for s in self._squares]
        totals = [zero if t is None else t.to(device) for t in self._totals]
        return Microbatches(count, torch.stack(squares), torch.stack(totals))
