r"""What is the trace of E, the part of the Hessian from the network's own curvature, when only activations bend?

If the network is linear in each parameter tensor apart from elementwise smooth activations :math:`a = \sigma(h)`, then

.. math:: \mathrm{Tr}\, E = \frac1N \sum_n \sum_i w_{ni}\, \|\nabla_\theta h_{ni}\|^2, \qquad
    w_{ni} = \frac{\partial \ell_n}{\partial a_{ni}}\, \sigma''(h_{ni}),

over all units i of all activations. Units are far too many to take one by one, but with independent random signs
:math:`\epsilon_i` the cross terms of :math:`\|\nabla_\theta \sum_i \epsilon_i \sqrt{w_i}\, h_i\|^2` vanish in the
mean: one backward pass with :math:`\epsilon_i \sqrt{w_i}` injected at all pre-activations for the units with w > 0,
one for those with w < 0, and the difference of the squared norms is an unbiased estimate a point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from decaylab.curvature.graph_analysis import SMOOTH, nodes, operation, second_derivative
from decaylab.curvature.importance_sampling import SAMPLE_SIZE, systematic
from decaylab.curvature.per_sample_norms import GhostNorms, Pass
from decaylab.errors import DecaylabError


class SmoothUnits:
    """The sum over units above, by tensors, as a source for `decaylab.curvature.importance_sampling`.

    Points are drawn with probability proportional to the length of the loss's gradient at the outputs.

    Args:
        ghost: Squared norms for the objective; it must cover all parameters.
        seed: Of its own generators.
    """

    def __init__(self, ghost: GhostNorms, seed: int) -> None:
        self._ghost = ghost
        self._objective = ghost.objective
        self._generator = torch.Generator().manual_seed(seed)
        self._signs = self._objective.generator(seed)
        self.num_rows = 0
        self.cost = 5.0
        self.exact_cost = math.inf
        sizes = []
        for batch, count in self._objective.chunks():
            with torch.no_grad():
                z = self._objective.outputs(batch)
            sizes.append(self._slope(z, batch).reshape(count, -1).norm(dim=1).cpu().double())
        self._size = torch.cat(sizes)

    def exact(self) -> Tensor:
        """Not known: the units are too many."""
        raise DecaylabError("the trace of the residual part is estimated, it has no exact form")

    def draw(self, num_repetitions: int) -> Tensor:
        """Return repetitions of the sum, shape (num_repetitions, P)."""
        if not float(self._size.sum()):
            return torch.zeros(num_repetitions, len(self._objective.names), dtype=torch.float64)
        index, weights = systematic(self._size, num_repetitions, self._generator)
        values = torch.cat([self._sample(some) for some in index.flatten().split(self._objective.chunk_size)])
        self.num_rows += index.numel()
        values = values.view(num_repetitions, SAMPLE_SIZE, -1) * weights.unsqueeze(-1)
        return values.sum(1) / self._objective.num_points

    def _slope(self, z: Tensor, batch: Any) -> Tensor:
        """Gradient of each point's loss with respect to its outputs."""
        leaf = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self._objective.loss_at(leaf, batch) * len(z), leaf)
        return slope

    def _sample(self, points: Tensor) -> Tensor:
        """One random value a point whose mean is the point's sum, shape (points, P)."""
        batch = self._objective.take(points)
        run = self._ghost.forward(batch)
        smooth = [node for node in nodes(run.outputs) if operation(node) in SMOOTH]
        at_activation: dict[Any, Tensor] = {}
        handles = [node.register_prehook(_store(at_activation, node)) for node in smooth]
        run.backward(self._slope(run.outputs, batch))
        _remove(handles)
        found = torch.zeros(len(points), len(self._objective.names), dtype=torch.float64)
        weights = {node: slope * second_derivative(node) for node, slope in at_activation.items()}
        signs = {
            node: torch.randint(2, w.shape, generator=self._signs, device=w.device).to(w.dtype) * 2 - 1
            for node, w in weights.items()
        }
        for half in (1.0, -1.0):
            injected = {node: signs[node] * (half * w).clamp(min=0).sqrt() for node, w in weights.items()}
            handles = [node.register_hook(_add(extra)) for node, extra in injected.items()]
            found += half * self._norms(run).cpu().double()
            _remove(handles)
        return found

    def _norms(self, run: Pass) -> Tensor:
        return run.layer_norms(torch.zeros_like(run.outputs))


def _store(where: dict[Any, Tensor], node: Any) -> Callable[[tuple[Tensor, ...]], None]:
    def hook(at_output: tuple[Tensor, ...]) -> None:
        where[node] = at_output[0].detach()

    return hook


def _add(extra: Tensor) -> Callable[..., tuple[Tensor, ...]]:
    def hook(at_input: tuple[Tensor, ...], at_output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (at_input[0] + extra, *at_input[1:])

    return hook


def _remove(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()
