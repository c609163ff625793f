"""What are the largest eigenvalues of the Hessian?"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from decaylab.curvature.lanczos import LanczosBasis
from decaylab.curvature.model_copy import plain_kernels
from decaylab.curvature.operators import Matrix, Operator
from decaylab.curvature.prepare import objective
from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError, unknown

End = Literal["largest", "smallest", "magnitude"]
_ENDS = ("largest", "smallest", "magnitude")


@dataclass(frozen=True, eq=False)
class Eigenvalues:
    """Some eigenvalues of a symmetric matrix over the parameters.

    Attributes:
        values: The eigenvalues, the outermost first.
        residuals: Norm of A q - value q for each: some eigenvalue of A is at most that far away.
        vectors: For each, parameter name to its part of the unit eigenvector; empty unless asked for.
        num_matvecs: Products with the matrix.
        converged: Whether all are as accurate as was asked for.
        seconds: Wall-clock time.
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    vectors: tuple[dict[str, Tensor], ...]
    num_matvecs: int
    converged: bool
    seconds: float


def top_eigenvalues(
    model: nn.Module,
    loss_fn: LossFunction | nn.Module,
    batches: Iterable[Any],
    num_eigenvalues: int = 1,
    rel_error: float = 1e-3,
    *,
    matrix: Matrix = "hessian",
    end: End = "largest",
    max_matvecs: int = 100,
    vectors: bool = False,
    seed: int = 0,
    chunk_size: int | None = None,
) -> Eigenvalues:
    r"""Compute the outermost eigenvalues of the Hessian by Lanczos with full reorthogonalisation.

    With :math:`\rho` the residual of a Ritz value :math:`\theta` and :math:`\delta` its distance to the next one, the
    classical bound on its error is :math:`\min(\rho, \rho^2/\delta)`. The recursion stops when that is at most
    ``rel_error`` :math:`|\theta|` for every wanted value.

    Args:
        model: The model, left alone; measured in eval mode and at least float32.
        loss_fn: Mean loss, see `decaylab.curvature.prepare.objective`.
        batches: The points, see there.
        num_eigenvalues: How many.
        rel_error: Accuracy, see above.
        matrix: ``"hessian"``, ``"gauss_newton"``, ``"residual"`` or ``"covariance"`` (of the gradient noise).
        end: ``"largest"`` (signed), ``"smallest"`` or ``"magnitude"``.
        max_matvecs: At most so many products; as many vectors of the size of the model are kept.
        vectors: Whether to return eigenvectors.
        seed: Of the random start.
        chunk_size: Points differentiated together.

    Returns:
        The eigenvalues.

    Raises:
        DecaylabError: More eigenvalues wanted than there are parameters, or see `objective`.
    """
    started = time.perf_counter()
    made = objective(model, loss_fn, batches, chunk_size=chunk_size)
    if end not in _ENDS:
        raise unknown("end of the spectrum", end, _ENDS)
    if not 1 <= num_eigenvalues <= made.num_parameters:
        raise DecaylabError(f"num_eigenvalues must be between 1 and {made.num_parameters}, not {num_eigenvalues}")
    with plain_kernels(made.device):
        basis = LanczosBasis(Operator(made, matrix), made, made.generator(seed))
        while True:
            basis.step()
            k = len(basis.diagonal)
            if k < num_eigenvalues:
                continue
            theta, s = basis.ritz()
            order = {"largest": -theta, "smallest": theta, "magnitude": -theta.abs()}[end].argsort()[:num_eigenvalues]
            residuals = (basis.below[-1] * s[-1]).abs()
            error = torch.stack([_error(theta, residuals, int(i)) for i in order])
            done = bool((error <= rel_error * theta[order].abs()).all())
            if done or k >= min(max_matvecs, made.num_parameters) or bool(theta.isnan().any()):
                break
        found = [basis.vector(s[:, i]) for i in order] if vectors else []
    return Eigenvalues(
        values=tuple(theta[order].tolist()),
        residuals=tuple(residuals[order].tolist()),
        vectors=tuple(dict(zip(made.names, made.unflat(v), strict=True)) for v in found),
        num_matvecs=k,
        converged=done or (k == made.num_parameters and not bool(theta.isnan().any())),
        seconds=time.perf_counter() - started,
    )


def _error(theta: Tensor, residuals: Tensor, i: int) -> Tensor:
    others = torch.cat([theta[:i], theta[i + 1 :]])
    if not len(others):
        return residuals[i]
    gap = (others - theta[i]).abs().min()
    return torch.minimum(residuals[i], residuals[i].square() / gap.clamp(min=1e-300))
