"""How much do the gradients of single examples differ, and how does that compare with the loss?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.utils import _pytree as pytree

from decaylab.curvature.model_copy import plain_kernels
from decaylab.curvature.objective import Objective
from decaylab.curvature.prepare import objective
from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError
from decaylab.tensors.reduce import accurate

_CHUNK_BYTES = 128 * 2**20  # of single examples' gradients


@dataclass(frozen=True, eq=False)
class GradientNoise:
    """Moments of the gradients of single examples, by parameter.

    Attributes:
        names: Parameters, in the order of the vectors.
        num_points: n, the number of examples.
        loss: Mean loss, 0-d.
        second_moments: ``mean_i |g_i|^2``, shape (P,).
        mean_squares: ``|mean_i g_i|^2``, shape (P,).
    """

    names: tuple[str, ...]
    num_points: int
    loss: Tensor
    second_moments: Tensor
    mean_squares: Tensor

    @property
    def variances(self) -> Tensor:
        """Trace of the covariance of one example's gradient, ``sum_i |g_i - mean|^2 / (n - 1)``, shape (P,)."""
        return (self.second_moments - self.mean_squares) * (self.num_points / (self.num_points - 1))


class _Loss(nn.Module):
    def __init__(self, target: Objective) -> None:
        super().__init__()
        self.model, self._target = target.model, [target]

    def forward(self, batch: Any) -> Tensor:
        return self._target[0].loss(batch)


def gradient_noise(
    model: nn.Module, loss_fn: LossFunction | nn.Module, batches: Iterable[Any], *, chunk_size: int | None = None
) -> GradientNoise:
    """Measure the gradient of every single example exactly, with a vectorised backward pass (`torch.func.vmap`).

    Costs about two to five times a training pass over the points; memory is ``chunk_size`` times the model. The model
    runs in eval mode (as a private copy), so the moments are those of its loss without dropout. Where vmap cannot
    vectorise the model (control flow that depends on data), examples are differentiated one by one.

    Args:
        model: The model.
        loss_fn: ``loss_fn(model, batch)``, mean loss of a batch, or a criterion on ``(outputs, targets)``.
        batches: The examples.
        chunk_size: Examples differentiated together; None keeps their gradients within 128 MiB.

    Returns:
        The moments.

    Raises:
        DecaylabError: Fewer than two points, or a loss that is not a mean over points.
    """
    target = objective(model, loss_fn, batches, chunk_size=chunk_size)
    if target.num_points < 2:
        raise DecaylabError("gradient noise needs at least two points: give a longer batch")
    size = chunk_size or max(1, _CHUNK_BYTES // (4 * target.num_parameters))
    module = _Loss(target)
    frozen = {name: t.detach() for name, t in [*module.named_parameters(), *module.named_buffers()]}
    trainable = {f"model.{name}": p.detach() for name, p in zip(target.names, target.parameters, strict=True)}

    def loss_of_one(weights: dict[str, Tensor], example: Any) -> Tensor:
        batch = pytree.tree_map(lambda leaf: leaf.unsqueeze(0), example)
        loss: Tensor = functional_call(module, {**frozen, **weights}, (batch,))
        return loss

    per_example = vmap(grad_and_value(loss_of_one), in_dims=(None, 0), randomness="different")
    wide = accurate(target.device)
    loss = torch.zeros((), dtype=wide, device=target.device)
    squares = torch.zeros(len(trainable), dtype=wide, device=target.device)
    sums = [torch.zeros_like(p) for p in trainable.values()]
    with plain_kernels(target.device), torch.no_grad():
        for batch, _ in target.chunks(min(size, target.num_points)):
            try:
                gradients, losses = per_example(trainable, batch)
            except RuntimeError:
                gradients, losses = _one_by_one(grad_and_value(loss_of_one), trainable, batch)
            found = [gradients[name] for name in trainable]
            loss += losses.sum(dtype=wide)
            squares += torch.stack(torch._foreach_norm(found)).to(wide).square()
            torch._foreach_add_(sums, [g.sum(dim=0) for g in found])
    n = target.num_points
    mean_squares = torch.stack(torch._foreach_norm(sums)).to(wide).square() / n**2
    return GradientNoise(target.names, n, loss / n, squares / n, mean_squares)


def _one_by_one(
    one: Callable[[dict[str, Tensor], Any], tuple[dict[str, Tensor], Tensor]], weights: dict[str, Tensor], batch: Any
) -> tuple[dict[str, Tensor], Tensor]:
    count = len(pytree.tree_leaves(batch)[0])
    found = [one(weights, pytree.tree_map(lambda leaf, i=i: leaf[i], batch)) for i in range(count)]
    return {name: torch.stack([g[name] for g, _ in found]) for name in weights}, torch.stack([x for _, x in found])
