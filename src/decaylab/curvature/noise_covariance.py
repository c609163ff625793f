r"""Does the gradient noise have the shape of the Hessian, and of which part of it?

For Gaussian vectors v, the cosines of :math:`(Hv, \Sigma v)`, :math:`(Gv, \Sigma v)` and :math:`(Ev, \Sigma v)`,
where :math:`\Sigma = \frac1N \sum_n (g_n - \bar g)(g_n - \bar g)^\top` is the covariance of single points' gradients
and H = G + E the Gauss-Newton split (Figure 13 of the paper).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from decaylab.curvature.estimate import Part
from decaylab.curvature.model_copy import plain_kernels
from decaylab.curvature.operators import MATRICES, Operator
from decaylab.curvature.prepare import objective
from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError

# How far H v may be from G v + E v, relative to H v, before the split is refused (float32, TF32 on a GPU).
_SPLIT_TOLERANCE = 0.02


@dataclass(frozen=True)
class CovarianceSimilarity:
    """Mean cosines over random vectors, each with its standard error.

    Attributes:
        hessian: Of H v and Sigma v.
        gauss_newton: Of G v and Sigma v.
        residual: Of E v and Sigma v; nan where E v = 0.
        split_error: The largest relative difference between H v and G v + E v, three independent computations.
        num_vectors: Number of random vectors.
        seconds: Wall-clock time.
    """

    hessian: Part
    gauss_newton: Part
    residual: Part
    split_error: float
    num_vectors: int
    seconds: float


def covariance_similarity(
    model: nn.Module,
    loss_fn: LossFunction | nn.Module,
    batches: Iterable[Any],
    *,
    num_vectors: int = 20,
    seed: int = 0,
    chunk_size: int | None = None,
) -> CovarianceSimilarity:
    """Compare the gradient noise with the Hessian and its two parts along random directions.

    Args:
        model: The model, left alone; measured in eval mode and at least float32.
        loss_fn: Mean loss, see `decaylab.curvature.prepare.objective`.
        batches: The points, see there.
        num_vectors: Gaussian vectors, each with one product with every matrix.
        seed: Of the vectors.
        chunk_size: Points differentiated together.

    Returns:
        The mean cosines.

    Raises:
        DecaylabError: H v is not G v + E v, because the loss depends on the parameters other than through the outputs
            (a penalty in the loss), or see `objective`.
    """
    started = time.perf_counter()
    if num_vectors < 2:
        raise DecaylabError("num_vectors must be at least 2, so that there is a standard error")
    made = objective(model, loss_fn, batches, chunk_size=chunk_size)
    cosines: list[list[float]] = []
    split_error = 0.0
    with plain_kernels(made.device):
        generator = made.generator(seed)
        operators = [Operator(made, matrix) for matrix in MATRICES]
        for _ in range(num_vectors):
            v = torch.randn(made.num_parameters, generator=generator, device=made.device, dtype=made.dtype)
            h, g, e, s = (operator(v) for operator in operators)
            split_error = max(split_error, float((h - g - e).norm() / h.norm()))
            cosines.append([_cosine(part, s) for part in (h, g, e)])
    if split_error > _SPLIT_TOLERANCE:
        raise DecaylabError(
            f"H v is not G v + E v (off by {split_error:.1%}): the loss seems to depend on the parameters other than "
            "through the model's outputs, say by a penalty; leave that out"
        )
    table = torch.tensor(cosines, dtype=torch.float64)
    means, errors = table.mean(0).tolist(), (table.std(0) / num_vectors**0.5).tolist()
    hessian, gauss_newton, residual = (Part(mean, error) for mean, error in zip(means, errors, strict=True))
    return CovarianceSimilarity(
        hessian, gauss_newton, residual, split_error, num_vectors, time.perf_counter() - started
    )


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))
