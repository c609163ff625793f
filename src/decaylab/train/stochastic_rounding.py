"""How does a step reach weights that are stored in bfloat16 without losing what is smaller than their spacing?

With 8 significant bits ``256 + 1 = 256``: rounding to nearest drops every change below half the spacing, always in the
same direction (towards no change), so small updates, and decay above all, never happen. Rounding up or down at random,
with probabilities that make the mean exact, keeps them on average.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from collections import OrderedDict

_LOST_BITS = 16  # what float32 has beyond bfloat16: both have the same sign and exponent


def round_stochastically(values: Tensor, generator: torch.Generator) -> Tensor:
    """Round float32 values to bfloat16, up or down at random, without bias.

    A value x between two neighbouring bfloat16 numbers a < b becomes b with probability (x - a) / (b - a), so that
    E[rounded] = x. Values that bfloat16 can hold, infinities and NaN stay what they are. Beyond the largest bfloat16
    number there is no upper neighbour but infinity.

    A float32 number is a bfloat16 number followed by 16 bits that say how far it is on the way to the next: a uniform
    random number of 16 bits added to them carries with exactly that probability.

    Args:
        values: float32, any shape.
        generator: On the device of the values; the same state gives the same rounding.

    Returns:
        bfloat16, the same shape.

    >>> x = torch.full((100_000,), 1 + 1 / 512)  # a quarter of the way from 1 to the next number, 1 + 1/128
    >>> sorted(set(round_stochastically(x, torch.Generator().manual_seed(0)).tolist()))
    [1.0, 1.0078125]
    """
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint(0, 1 << _LOST_BITS, bits.shape, dtype=torch.int32, device=values.device, generator=generator)
    rounded = (bits + noise).bitwise_and_(-(1 << _LOST_BITS)).view(torch.float32)
    return torch.where(torch.isfinite(values), rounded, values).to(torch.bfloat16)


class StochasticRounding:
    """Lets an optimizer step bfloat16 weights in float32 arithmetic, with stochastic rounding of the result.

    Inside ``widened()`` the parameters and their gradients are float32 copies, so the optimizer computes its step, its
    state and the decay in float32; at the end of the block the weights are rounded back. Nothing of the lost bits is
    kept: the memory between steps is that of bfloat16 weights and of float32 optimizer state.

    The random numbers depend on the run's seed and the step alone, so a resumed run rounds as it would have.

    Args:
        parameters: Those the optimizer steps; the ones stored in bfloat16 are rounded, others left alone.
        seed: The run's seed.

    Attributes:
        step: 0-based index of the update that comes, for the hooks.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], seed: int) -> None:
        self._parameters = [p for p in parameters if p.dtype == torch.bfloat16 and p.requires_grad]
        self._seed, self.step = seed, 0
        self._open: AbstractContextManager[None] | None = None
        self._generators = {device: torch.Generator(device) for device in {p.device for p in self._parameters}}

    def hook(self, optimizer: Optimizer) -> None:
        """Widen the weights around every step of an optimizer, attached decay rules included."""
        before = optimizer.register_step_pre_hook(self._begin)
        optimizer.register_step_post_hook(self._end)
        cast("OrderedDict[int, Any]", optimizer._optimizer_step_pre_hooks).move_to_end(before.id, last=False)

    def _begin(self, *_: Any) -> None:
        self._open = self.widened(self.step)
        self._open.__enter__()

    def _end(self, *_: Any) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
        self._open = None

    @contextmanager
    def widened(self, step: int) -> Iterator[None]:
        """Hold float32 weights and gradients inside the block, and round the weights at its end.

        Args:
            step: 0-based index of the update; decides the random numbers.
        """
        gradients = [p.grad for p in self._parameters]
        for p, gradient in zip(self._parameters, gradients, strict=True):
            p.grad = None  # a gradient has to have its parameter's type, so it goes first and comes back last
            p.data = p.data.float()
            p.grad = None if gradient is None else gradient.float()
        try:
            yield
        finally:
            for generator in self._generators.values():
                generator.manual_seed((self._seed * 0x9E3779B97F4A7C15 + 2 * step + 1) % 2**63)
            for p, gradient in zip(self._parameters, gradients, strict=True):
                p.grad = None
                p.data = round_stochastically(p.data, self._generators[p.device])
                p.grad = gradient
