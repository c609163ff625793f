r"""What do the Hessian, its Gauss-Newton part, the rest, and the gradient noise do to a vector?

With :math:`z_n` the outputs, :math:`r_n` the gradient and :math:`S_n` the Hessian of point n's loss with respect to
them:

.. math:: H = \nabla^2 L = G + E, \quad G = \frac1N \sum_n J_n^\top S_n J_n, \quad
    E = \frac1N \sum_n \sum_c r_{nc} \nabla^2 z_{nc}, \quad
    \Sigma = \frac1N \sum_n (g_n - \bar g)(g_n - \bar g)^\top .

All products are exact and go through the points in chunks; each costs about three times a gradient. No matrix and no
gradient of a single point is formed: J v and the products of v with all points' gradients come from a second backward
pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from decaylab.curvature.model_copy import plain_kernels
from decaylab.curvature.objective import Objective
from decaylab.curvature.output_factors import curvature_product
from decaylab.curvature.prepare import objective
from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError, unknown

Matrix = Literal["hessian", "gauss_newton", "residual", "covariance"]
# one tensor a parameter -> their product with a chunk's matrix, flat
Product: TypeAlias = Callable[[list[Tensor]], Tensor]
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
        loss_fn: Mean loss, see `decaylab.curvature.prepare.objective`.
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
        self._mean_gradient: Tensor | None = None
        # With one chunk the graph of the first product serves all.
        self._product: Product | None = None

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply; ``vector`` and the product are shape (num_parameters,)."""
        made = self.objective
        pieces = made.unflat(vector)
        total = torch.zeros_like(vector)
        for batch, count in made.chunks():
            product = self._product or chunk_product(made, self.matrix, batch)
            if count == made.num_points:
                self._product = product
            total += product(pieces) * (count / made.num_points)
        self.num_products += 1
        if self.matrix == "covariance":
            if self._mean_gradient is None:
                self._mean_gradient = gradient(made)
            total -= self._mean_gradient * (self._mean_gradient @ vector)
        return total


def chunk_product(objective: Objective, matrix: Matrix, batch: Any) -> Product:
    """Build the graph of a batch once and return its products, for the second moment of gradients, not centred."""
    if matrix in ("hessian", "residual"):
        return _second_order(objective, batch, matrix == "residual")
    return _first_order(objective, batch, matrix == "gauss_newton")


def gradient(objective: Objective) -> Tensor:
    """Return the gradient of the mean loss as a flat vector."""
    total = torch.zeros(objective.num_parameters, device=objective.device, dtype=objective.dtype)
    for batch, count in objective.chunks():
        parts = torch.autograd.grad(objective.loss(batch), objective.parameters, allow_unused=True)
        total += _join(objective, parts) * (count / objective.num_points)
    return total


def _second_order(made: Objective, batch: Any, residual: bool) -> Product:
    """Differentiate the gradient once more. For E the loss's slope at the outputs is held fixed meanwhile."""
    if residual:
        z = made.outputs(batch)
        value = (z * _slope(made, z, batch)).sum()
    else:
        value = made.loss(batch)
    gradients = torch.autograd.grad(value, made.parameters, create_graph=True, allow_unused=True)

    def product(pieces: list[Tensor]) -> Tensor:
        some = [(g, v) for g, v in zip(gradients, pieces, strict=True) if g is not None and g.requires_grad]
        if not some:  # a loss that is linear in the parameters
            return torch.zeros(made.num_parameters, device=made.device, dtype=made.dtype)
        parts = torch.autograd.grad(
            [g for g, _ in some], made.parameters, [v for _, v in some], retain_graph=True, allow_unused=True
        )
        return _join(made, parts)

    return product


def _first_order(made: Objective, batch: Any, gauss_newton: bool) -> Product:
    """Go to the outputs and back: J^T S J v, or the sum of g_n (g_n v) with g_n = J_n^T r_n."""
    z = made.outputs(batch)
    # J^T w is linear in w, and its derivative by w along v is J v: forward mode by two backward passes
    cotangent = torch.zeros_like(z, requires_grad=True)
    transposed = torch.autograd.grad(z, made.parameters, cotangent, create_graph=True, allow_unused=True)
    slope = None if gauss_newton else _slope(made, z, batch) * len(z)

    def product(pieces: list[Tensor]) -> Tensor:
        some = [(g, v) for g, v in zip(transposed, pieces, strict=True) if g is not None]
        (tangent,) = torch.autograd.grad([g for g, _ in some], cotangent, [v for _, v in some], retain_graph=True)
        if slope is None:
            leaf = z.detach().requires_grad_()
            row = curvature_product(made.loss_at(leaf, batch), leaf, tangent)
        else:
            along = (slope * tangent).reshape(len(z), -1).sum(1) / len(z)
            row = slope * along.view(-1, *[1] * (z.ndim - 1))
        return _join(made, torch.autograd.grad(z, made.parameters, row, retain_graph=True, allow_unused=True))

    return product


def _slope(made: Objective, z: Tensor, batch: Any) -> Tensor:
    leaf = z.detach().requires_grad_()
    slope: Tensor = torch.autograd.grad(made.loss_at(leaf, batch), leaf)[0]
    return slope


def _join(objective: Objective, parts: Iterable[Tensor | None]) -> Tensor:
    return torch.cat(
        [
            (torch.zeros_like(p) if part is None else part).detach().reshape(-1)
            for p, part in zip(objective.parameters, parts, strict=True)
        ]
    )
