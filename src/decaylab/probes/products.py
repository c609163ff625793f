r"""What do the Hessian, its Gauss-Newton part, the rest, and the gradient noise do to a vector?

With :math:`z_n` the outputs, :math:`r_n` the gradient and :math:`S_n` the Hessian of point n's loss with respect to
them:

.. math:: H = \nabla^2 L = G + E, \quad G = \frac1N \sum_n J_n^\top S_n J_n, \quad
    E = \frac1N \sum_n \sum_c r_{nc} \nabla^2 z_{nc}, \quad
    \Sigma = \frac1N \sum_n (g_n - \bar g)(g_n - \bar g)^\top .

All products are exact and go through the points in chunks; a product with H or E costs about three to four times a
gradient, one with G or Sigma a forward-mode pass and a gradient. No matrix and no per-sample gradient is formed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from decaylab.errors import DecaylabError, unknown
from decaylab.probes.context import LossFunction
from decaylab.probes.objective import Objective, objective
from decaylab.probes.output_rows import curvature_product
from decaylab.probes.private_copy import plain_kernels

Matrix = Literal["hessian", "gauss_newton", "residual", "covariance"]
MATRICES: tuple[Matrix, ...] = ("hessian", "gauss_newton", "residual", "covariance")


def hessian_vector_product(
    model: nn.Module,
    loss_fn: LossFunction | nn.Module,
    batches: Iterable[Any],
    vector: Mapping[str, Tensor],
    *,
    chunk_size: int | None = None,
) -> dict[str, Tensor]:
    r"""Return H v, with :math:`H = \nabla^2 L` over the trainable parameters.

    Args:
        model: The model, left alone; measured in eval mode and at least float32.
        loss_fn: Mean loss, see `decaylab.probes.objective.objective`.
        batches: The points, see there.
        vector: v: parameter name to tensor of the parameter's shape; missing names are zero.
        chunk_size: Points differentiated together.

    Returns:
        Parameter name to tensor.

    Raises:
        DecaylabError: A name of ``vector`` is not a trainable parameter, a shape is wrong, or see `objective`.
    """
    return _named_product("hessian", model, loss_fn, batches, vector, chunk_size)


def gauss_newton_vector_product(
    model: nn.Module,
    loss_fn: LossFunction | nn.Module,
    batches: Iterable[Any],
    vector: Mapping[str, Tensor],
    *,
    chunk_size: int | None = None,
) -> dict[str, Tensor]:
    r"""Return G v, with :math:`G = \frac1N \sum_n J_n^\top S_n J_n`; arguments as `hessian_vector_product`."""
    return _named_product("gauss_newton", model, loss_fn, batches, vector, chunk_size)


def _named_product(
    matrix: Matrix,
    model: nn.Module,
    loss_fn: LossFunction | nn.Module,
    batches: Iterable[Any],
    vector: Mapping[str, Tensor],
    chunk_size: int | None,
) -> dict[str, Tensor]:
    made = objective(model, loss_fn, batches, chunk_size=chunk_size)
    for name in vector:
        if name not in made.names:
            raise unknown("trainable parameter", name, made.names)
    pieces = []
    for name, p in zip(made.names, made.parameters, strict=True):
        piece = vector.get(name)
        if piece is not None and piece.shape != p.shape:
            raise DecaylabError(f"the vector's {name} has shape {tuple(piece.shape)}, the parameter {tuple(p.shape)}")
        pieces.append(torch.zeros_like(p) if piece is None else piece.detach().to(p))
    with plain_kernels(made.device):
        product = Operator(made, matrix)(made.flat(pieces))
    return dict(zip(made.names, made.unflat(product), strict=True))


class Operator:
    """One of the matrices as a function of flat vectors.

    Args:
        objective: What is differentiated.
        matrix: ``"hessian"``, ``"gauss_newton"``, ``"residual"`` or ``"covariance"``.

    Attributes:
        num_products: Products computed so far.
    """

    def __init__(self, objective: Objective, matrix: Matrix) -> None:
        if matrix not in MATRICES:
            raise unknown("matrix", matrix, MATRICES)
        self.objective = objective
        self.matrix = matrix
        self.num_products = 0
        self._gradient: Tensor | None = None
        # With one chunk the graph of the gradient serves all products.
        self._graph: tuple[Tensor, ...] | None = None

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply; ``vector`` and the product are shape (num_parameters,)."""
        made = self.objective
        pieces = made.unflat(vector)
        total = torch.zeros_like(vector)
        for batch, count in made.chunks():
            if self.matrix in ("hessian", "residual"):
                product = self._second_order(batch, pieces)
            else:
                product = self._first_order(batch, count, pieces)
            total += product * (count / made.num_points)
        self.num_products += 1
        if self.matrix == "covariance":
            mean = self._mean_gradient()
            total -= mean * (mean @ vector)
        return total

    def _second_order(self, batch: Any, pieces: list[Tensor]) -> Tensor:
        gradients = self._graph or differentiable_gradient(self.objective, batch, self.matrix == "residual")
        if self.objective.num_points <= self.objective.chunk_size:
            self._graph = gradients
        return second_derivative_product(self.objective, gradients, pieces)

    def _first_order(self, batch: Any, count: int, pieces: list[Tensor]) -> Tensor:
        made = self.objective
        names = [f"model.{name}" for name in made.names]
        holder = _Network(made)

        def network(*parameters: Tensor) -> Tensor:
            z: Tensor = functional_call(holder, dict(zip(names, parameters, strict=True)), (batch,))
            return z

        # the primal output keeps its ordinary graph to the parameters: one forward pass serves both directions
        z, tangent = jvp(network, made.parameters, tuple(pieces))[:2]
        leaf = z.detach().requires_grad_()
        if self.matrix == "gauss_newton":
            row = curvature_product(made.loss_at(leaf, batch), leaf, tangent.detach())
        else:
            (slope,) = torch.autograd.grad(made.loss_at(leaf, batch) * count, leaf)
            along = (slope * tangent.detach()).flatten(1).sum(1) if slope.ndim > 1 else slope * tangent.detach()
            row = slope * along.view(-1, *[1] * (slope.ndim - 1)) / count
        return _join(made, torch.autograd.grad(z, made.parameters, row, allow_unused=True))

    def _mean_gradient(self) -> Tensor:
        if self._gradient is None:
            self._gradient = gradient(self.objective)
        return self._gradient


def gradient(objective: Objective) -> Tensor:
    """Return the gradient of the mean loss as a flat vector."""
    total = torch.zeros(objective.num_parameters, device=objective.device, dtype=objective.dtype)
    for batch, count in objective.chunks():
        parts = torch.autograd.grad(objective.loss(batch), objective.parameters, allow_unused=True)
        total += _join(objective, parts) * (count / objective.num_points)
    return total


def differentiable_gradient(objective: Objective, batch: Any, residual: bool = False) -> tuple[Tensor, ...]:
    """Return the gradient of a batch's loss with its graph.

    Args:
        objective: What is differentiated.
        batch: Some points.
        residual: Hold the loss's slope at the outputs fixed, so that differentiating again gives E instead of H.
    """
    if residual:
        z = objective.outputs(batch)
        leaf = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(objective.loss_at(leaf, batch), leaf)
        value = (z * slope).sum()
    else:
        value = objective.loss(batch)
    return tuple(
        torch.zeros_like(p) if g is None else g
        for p, g in zip(
            objective.parameters,
            torch.autograd.grad(value, objective.parameters, create_graph=True, allow_unused=True),
            strict=True,
        )
    )


def second_derivative_product(objective: Objective, gradients: tuple[Tensor, ...], pieces: list[Tensor]) -> Tensor:
    """Differentiate a gradient along a vector; the graph is kept."""
    some = [(g, v) for g, v in zip(gradients, pieces, strict=True) if g.requires_grad]
    if not some:
        return torch.zeros(objective.num_parameters, device=objective.device, dtype=objective.dtype)
    parts = torch.autograd.grad(
        [g for g, _ in some], objective.parameters, [v for _, v in some], retain_graph=True, allow_unused=True
    )
    return _join(objective, parts)


def _join(objective: Objective, parts: Iterable[Tensor | None]) -> Tensor:
    return torch.cat(
        [
            (torch.zeros_like(p) if part is None else part).detach().reshape(-1)
            for p, part in zip(objective.parameters, parts, strict=True)
        ]
    )


class _Network(nn.Module):
    """The outputs of an objective as a module, so that functional_call can replace parameters."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.model = objective.model
        self._objective = objective

    def forward(self, batch: Any) -> Tensor:
        return self._objective.outputs(batch)
