r"""Which directions of the outputs does the loss curve along: S = sum over rows of u u^T, and random rows.

A Gauss-Newton matrix is :math:`G = \frac1N \sum_n J_n^\top S_n J_n` with :math:`S_n` the Hessian of point n's loss
with respect to its outputs :math:`z_n`. Its trace is a sum of squared gradient norms, one a row u of a factor of
:math:`S_n`: :math:`\mathrm{Tr}\, G = \frac1N \sum_n \sum_j \pm \|\nabla_\theta \langle u_{nj}, z_n\rangle\|^2`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from decaylab.curvature.objective import Objective
from decaylab.curvature.sample_points import unlike_points

Kind = Literal["softmax", "identity", "general", "none"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one factor of S for each of B points.

    Attributes:
        vectors: Shape (B, J, C), C outputs a point.
        signs: Shape (B, J): +1, or -1 where a loss curves downwards; 0 for a row that is not there.
    """

    vectors: Tensor
    signs: Tensor


def kind_of_loss(objective: Objective) -> Kind:
    """Find out how the loss depends on the outputs, by its second derivatives at random outputs.

    Returns:
        ``"softmax"`` for the mean softmax cross-entropy over the last dimension (and over positions, where the outputs
        have more than two dimensions), ``"general"`` for another loss of one row of outputs a point, ``"none"`` for
        another loss with several positions a point (no factor of S is known), and for a loss that depends on the
        parameters other than through the outputs, such as one with a penalty (H is not G + E).
    """
    batch = objective.take(unlike_points(objective.leaves)[0])
    z, _ = objective.outputs_and_loss(batch)
    if objective.loss_at(z.detach(), batch).requires_grad:
        return "none"
    shape = z.shape
    generator = objective.generator(0)
    z = torch.randn(shape, generator=generator, device=objective.device, dtype=objective.dtype).requires_grad_()
    v = torch.randn(shape, generator=generator, device=objective.device, dtype=objective.dtype)
    if z.ndim >= 2 and z.shape[-1] > 1:
        p = z.detach().softmax(-1)
        expected = p * (v - (p * v).sum(-1, keepdim=True)) / (z.numel() // z.shape[-1])
        if torch.allclose(curvature_product(objective.loss_at(z, batch), z, v), expected, rtol=1e-3, atol=1e-6):
            return "softmax"
    return "general" if z.ndim <= 2 else "none"


def curvature_product(loss: Tensor, outputs: Tensor, vector: Tensor) -> Tensor:
    """Multiply the Hessian of a loss with respect to outputs by a vector of their shape."""
    (gradient,) = torch.autograd.grad(loss, outputs, create_graph=True)
    if not gradient.requires_grad:  # a loss that is linear in the outputs
        return torch.zeros_like(outputs)
    (product,) = torch.autograd.grad(gradient, outputs, vector, allow_unused=True)
    return torch.zeros_like(outputs) if product is None else product


def all_rows(kind: Kind, objective: Objective, outputs: Tensor, batch: Any) -> Rows:
    r"""Return all rows of a factor of every point's S.

    For softmax cross-entropy :math:`S = \mathrm{diag}(p) - p p^\top` has rank C - 1. The Householder reflection that
    sends :math:`\sqrt p` to minus the unit vector of the most likely class k leaves C - 1 columns orthogonal to
    :math:`\sqrt p`, and with them the factor

    .. math:: u_j = \sqrt{p_j}\,\Bigl(e_j - \sqrt{p_k}\, e_k - \sum_{i \ne k} \frac{p_i}{1 + \sqrt{p_k}}\, e_i\Bigr),
        \qquad j \ne k,

    which has no cancellation, however sure the model is.

    Args:
        kind: What `kind_of_loss` says; ``"identity"`` is S = 1, the rows of the Jacobian.
        objective: Gives the loss for ``"general"``.
        outputs: Shape (B, C) or (B,), detached.
        batch: The points of ``outputs``.

    Returns:
        The rows: C - 1 a point for softmax, else C.
    """
    z = outputs.reshape(len(outputs), -1)
    num_points, num_outputs = z.shape
    if kind == "identity":
        eye = torch.eye(num_outputs, device=z.device, dtype=z.dtype).expand(num_points, -1, -1)
        return Rows(eye, torch.ones_like(z))
    if kind == "softmax":
        p = z.double().softmax(-1) if z.device.type != "mps" else z.softmax(-1)
        top = p.argmax(-1, keepdim=True)
        p_top = p.gather(-1, top)
        # the vector that is subtracted from e_j, the same for all j
        common = (p / (1 + p_top.sqrt())).scatter(-1, top, p_top.sqrt())
        square = p.sqrt().unsqueeze(-1) * (torch.eye(num_outputs, device=p.device, dtype=p.dtype) - common.unsqueeze(1))
        others = torch.arange(num_outputs - 1, device=p.device).expand(num_points, -1)
        others = others + (others >= top)
        rows = square.gather(1, others.unsqueeze(-1).expand(-1, -1, num_outputs)).to(z.dtype)
        return Rows(rows, torch.ones(num_points, num_outputs - 1, device=z.device, dtype=z.dtype))
    leaf = outputs.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(objective.loss_at(leaf, batch) * num_points, leaf, create_graph=True)
    gradient = gradient.reshape(num_points, -1)
    columns = [torch.zeros_like(z)] * num_outputs
    if gradient.requires_grad:
        for c in range(num_outputs):
            (column,) = torch.autograd.grad(gradient[:, c].sum(), leaf, retain_graph=True, allow_unused=True)
            columns[c] = torch.zeros_like(z) if column is None else column.reshape(num_points, -1)
    matrix = torch.stack(columns, 1)
    if not bool(matrix.isfinite().all()):  # a network that has diverged
        return Rows(torch.full_like(matrix, torch.nan), torch.ones_like(z))
    values, vectors = torch.linalg.eigh(matrix)
    return Rows((vectors * values.abs().sqrt().unsqueeze(1)).mT, values.sign())


def random_rows(kind: Kind, outputs: Tensor, generator: torch.Generator) -> Tensor:
    r"""Return one random row a point, :math:`r = \sum_j \epsilon_j u_j` with independent random signs.

    :math:`E\, r r^\top = S`, so that :math:`E \|J^\top r\|^2 = \mathrm{Tr}(J^\top S J)`, also when a point has many
    positions: the loss of a point is then the mean over its positions.

    Args:
        kind: ``"softmax"`` (over the last dimension) or ``"identity"``.
        outputs: Shape (B, ..., C).
        generator: Source of the signs.

    Returns:
        The rows, in the shape of ``outputs``.
    """
    signs = torch.randint(2, outputs.shape, generator=generator, device=outputs.device).to(outputs.dtype) * 2 - 1
    if kind == "identity":
        return signs
    p = outputs.softmax(-1)
    # diag(p) - p p^T = B B^T with B = diag(sqrt p) - p sqrt(p)^T
    rows = p.sqrt() * signs - p * (p.sqrt() * signs).sum(-1, keepdim=True)
    positions = outputs[0].numel() // outputs.shape[-1]
    return rows / math.sqrt(positions)
