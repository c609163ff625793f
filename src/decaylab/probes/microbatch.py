"""How noisy is the gradient, told from the micro-batches that it is accumulated from, without a pass of its own?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from decaylab.probes.context import Context, Measurement, entries, tensor_norms


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


@dataclass(frozen=True)
class MicrobatchNoise:
    """Gradient noise from the k micro-batches of a recorded step, without a pass of its own.

    Let ``h_i = k g_i`` be the gradient that micro-batch i alone would have given and ``G = mean_i h_i`` the one that is
    applied. Unbiased estimates (McCandlish et al. 2018, appendix A.1):

    - ``noise/microbatch/variance``: ``tr S = sum_i |h_i - G|^2 / (k - 1)``, the variance of one micro-batch's gradient;
    - ``noise/microbatch/signal``: ``|G|^2 - tr S / k``, squared length of the true gradient; it may come out negative;
    - ``noise/microbatch/scale``: ``tr S`` over the signal, the simple noise scale in micro-batches: multiply by the
      examples in one. NaN where the signal is not positive: average both parts over records before dividing;
    - ``noise/microbatch/snr``: ``|G|^2 / (tr S / k)``, signal to noise of the applied gradient: 1 is pure noise.

    Units are those of the gradient that the optimizer applies (after unscaling and clipping), so they compare with
    ``gradients/norm``. Needs at least two micro-batches a step, whose losses are all scaled alike. With data
    parallelism these are the micro-batches of this process; with sharded parameters nothing is seen.
    """

    name: str = "microbatch_noise"
    needs: frozenset[str] = frozenset({"gradients", "microbatches"})

    def measure(self, context: Context) -> Measurement:
        """Return the estimates; nothing with fewer than two micro-batches."""
        seen: Microbatches | None = context.microbatches
        if seen is None or seen.count < 2 or context.gradient_norms is None:
            return {}
        k = seen.count
        accumulated, applied = seen.total_squares.sum(), context.gradient_norms.square().sum()
        variance = (k * k * seen.squares.sum() - k * accumulated) / (k - 1)
        variance = variance * applied / accumulated  # in units of the applied gradient
        signal = applied - variance / k
        return {
            "noise/microbatch/variance": variance,
            "noise/microbatch/signal": signal,
            "noise/microbatch/scale": torch.where(signal > 0, variance / signal, torch.nan),
            "noise/microbatch/snr": applied / (variance / k),
        }
