"""What is differentiated: the mean loss of a private copy of the model over a fixed set of points, in chunks.

Every curvature probe starts here. The copy shares the storage of the weights (or holds them in float32 where they are
half precision), is in eval mode and belongs to the probe alone, so nothing a probe does (modes, hooks, flags of
``requires_grad``) is visible in the user's model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError

_ONE_CALL = (
    "loss_fn has to call model(...) exactly once, so that the loss can be told from the network; it called it {} times"
)


class _Outputs(Exception):
    """Carries the model's outputs out of a loss function that need not go on."""

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs


def _stop(module: nn.Module, args: Any, outputs: Any) -> None:
    raise _Outputs(outputs)


@dataclass(frozen=True, eq=False)
class Objective:
    r"""The function :math:`L(\theta) = \frac1N \sum_n \ell_n(\theta)` of the trainable parameters.

    Attributes:
        model: The private copy.
        names: Names of the trainable parameters, in the order of ``model.named_parameters()``.
        parameters: The copy's own parameters.
        num_points: N, the number of points.
        chunk_size: Points that are differentiated together; memory is proportional to it, results do not depend on it.
        device: Where the model is.
        dtype: float32, or float64 for a float64 model.
        leaves: The columns of the data, first dimension points, where the user has them.
    """

    model: nn.Module
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    num_points: int
    chunk_size: int
    device: torch.device
    dtype: torch.dtype
    leaves: tuple[Tensor, ...]
    _loss_fn: LossFunction | None
    _structure: pytree.TreeSpec

    @property
    def num_parameters(self) -> int:
        """Number of entries of all trainable parameters, the side of the Hessian."""
        return sum(p.numel() for p in self.parameters)

    @property
    def has_loss(self) -> bool:
        """Whether there is a loss, or outputs only."""
        return self._loss_fn is not None

    def take(self, index: slice | Tensor) -> Any:
        """Return a batch of some points, in the structure of the user's batches, on the device of the model."""
        leaves = [leaf[index].to(self.device, non_blocking=True) for leaf in self.leaves]
        leaves = [leaf.to(self.dtype) if leaf.is_floating_point() else leaf for leaf in leaves]
        return pytree.tree_unflatten(leaves, self._structure)

    def chunks(self, size: int | None = None) -> Iterator[tuple[Any, int]]:
        """Iterate over all points as batches of at most ``size`` (the chunk size), each with its number of points."""
        size = size or self.chunk_size
        for start in range(0, self.num_points, size):
            stop = min(start + size, self.num_points)
            yield self.take(slice(start, stop)), stop - start

    def loss(self, batch: Any) -> Tensor:
        """Return the mean loss of a batch as a scalar with its graph."""
        if self._loss_fn is None:
            raise DecaylabError("this measurement needs a loss: pass loss_fn(model, batch)")
        return self._loss_fn(self.model, batch)

    def outputs(self, batch: Any) -> Tensor:
        """Return what the model gives for a batch, shape (points, ...), with its graph."""
        if self._loss_fn is None:
            return _tensor(self.model(batch[0] if isinstance(batch, (tuple, list)) else batch))
        hook = self.model.register_forward_hook(_stop)
        try:
            self.loss(batch)
        except _Outputs as found:
            return _tensor(found.outputs)
        finally:
            hook.remove()
        raise DecaylabError(_ONE_CALL.format(0))

    def outputs_and_loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the model's outputs and the mean loss that was computed from them."""
        seen: list[Any] = []
        hook = self.model.register_forward_hook(lambda module, args, output: seen.append(output))
        try:
            loss = self.loss(batch)
        finally:
            hook.remove()
        if len(seen) != 1:
            raise DecaylabError(_ONE_CALL.format(len(seen)))
        return _tensor(seen[0]), loss

    def loss_at(self, outputs: Tensor, batch: Any) -> Tensor:
        """Return the mean loss of a batch as a function of given outputs; the network is not run."""
        self.model.forward = lambda *args, **kwargs: outputs
        try:
            return self.loss(batch)
        finally:
            del self.model.forward

    def flat(self, tensors: Iterable[Tensor]) -> Tensor:
        """Concatenate one tensor a parameter into a vector."""
        return torch.cat([t.reshape(-1) for t in tensors])

    def unflat(self, vector: Tensor) -> list[Tensor]:
        """Split a vector into one tensor a parameter."""
        parts = vector.split([p.numel() for p in self.parameters])
        return [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]

    def generator(self, seed: int) -> torch.Generator:
        """Return a generator of its own on the device of the model."""
        return torch.Generator(self.device).manual_seed(seed)


def _tensor(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise DecaylabError(f"the model has to return one tensor of outputs here, not {type(outputs).__name__}")
    return outputs
