"""Averages of the weights that are kept while a run trains: exponential moving averages and the plain mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from decaylab.config.schema import Averages
from decaylab.tensors.sharding import like, local
from decaylab.train.distributed import piece, whole


class WeightAverages:
    """Several averages of one model's trainable parameters, updated together after every step.

    An exponential moving average with coefficient b starts at the initial weights and follows a <- b a + (1 - b) w, as
    in the paper's code (no bias correction). The uniform average after n iterates is a <- a + (w - a) / n.

    Buffers are not averaged: the statistics of BatchNorm belong to the weights they were computed with, so whoever
    evaluates an average computes them anew.

    Where the weights are sharded, each process averages its share.

    Args:
        config: Which averages.
        model: The model; only parameters that require a gradient are averaged.
        total_steps: Steps of the run, which places ``uniform_from``.
    """

    def __init__(self, config: Averages, model: nn.Module, total_steps: int) -> None:
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._coefficients = {f"ema{coefficient:g}": coefficient for coefficient in config.ema}
        self._uniform = config.uniform
        self._uniform_from = round(config.uniform_from * total_steps)
        self._count = 0
        # float32 whatever the weights' type: an average in bfloat16 would not move at all with b close to 1.
        self._averages = {name: self._copy() for name in self.names}

    @property
    def names(self) -> tuple[str, ...]:
        """The averages' names, such as ``ema0.999`` and ``uniform``."""
        return (*self._coefficients, *(("uniform",) if self._uniform else ()))

    def _copy(self) -> list[Tensor]:
        return [local(p.detach()).float().clone() for p in self._parameters.values()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step ``step``."""
        if not self._averages:
            return
        weights = [local(p.detach()).float() for p in self._parameters.values()]
        for name, coefficient in self._coefficients.items():
            torch._foreach_lerp_(self._averages[name], weights, 1 - coefficient)
        if self._uniform and step >= self._uniform_from:
            self._count += 1
            torch._foreach_lerp_(self._averages["uniform"], weights, 1 / self._count)

    @torch.no_grad()
    def copy_to(self, name: str, model: nn.Module) -> None:
        """Write one average into another model of the same architecture."""
        target = dict(model.named_parameters())
        for key, value in zip(self._parameters, self._averages[name], strict=True):
            local(target[key]).copy_(value)

    @contextmanager
    def lent(self, name: str) -> Iterator[None]:
        """Put one average in the place of the weights inside the block, where there is no room for a second model."""
        parameters = [local(p.detach()) for p in self._parameters.values()]
        kept = [p.clone() for p in parameters]
        try:
            for p, value in zip(parameters, self._averages[name], strict=True):
                p.copy_(value)
            yield
        finally:
            for p, value in zip(parameters, kept, strict=True):
                p.copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """Return every average as named tensors, whole ones, and the count of the uniform one."""
        state = {
            f"{name}/{key}": whole(like(p.detach(), value))
            for name, values in self._averages.items()
            for (key, p), value in zip(self._parameters.items(), values, strict=True)
        }
        return state | {"count": torch.tensor(self._count)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._count = int(state["count"])
        for name, values in self._averages.items():
            for (key, p), value in zip(self._parameters.items(), values, strict=True):
                value.copy_(piece(p, state[f"{name}/{key}"]))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model into evaluation mode inside the block, and every module back into its own mode after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
