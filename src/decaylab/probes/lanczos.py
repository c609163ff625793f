r"""What are the largest eigenvalues of the Hessian, and how is its whole spectrum distributed?

The Lanczos recursion (1950) turns k products with a symmetric matrix A into an orthonormal basis Q and a k x k
tridiagonal :math:`T = Q^\top A Q`. Extreme eigenvalues of T converge first to those of A; and for a random start, the
eigenvalues of T weighted by the squared first entries of its eigenvectors are a Gauss quadrature of the spectral
density of A. In floating point the basis loses orthogonality as soon as an eigenvalue converges, and copies appear:
every new vector is orthogonalised against the whole basis, twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from decaylab.errors import DecaylabError, unknown
from decaylab.probes.context import Context, LossFunction, Measurement
from decaylab.probes.gauss_newton import needed_loss
from decaylab.probes.objective import Objective, objective
from decaylab.probes.private_copy import plain_kernels
from decaylab.probes.products import Matrix, Operator

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


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    r"""The distribution of eigenvalues, :math:`\phi(x) = \frac1P \sum_i \delta(x - \lambda_i)`, as weighted points.

    Attributes:
        nodes: Shape (num_probes, num_matvecs), float64: points on the axis, one row a random start.
        weights: The same shape: their masses, each row adding up to 1.
        num_parameters: P, the number of eigenvalues.
        num_matvecs: Products with the matrix, all starts together.
        seconds: Wall-clock time.
    """

    nodes: Tensor
    weights: Tensor
    num_parameters: int
    num_matvecs: int
    seconds: float

    def moment(self, order: int) -> tuple[float, float]:
        r"""Return :math:`\frac1P \sum_i \lambda_i^k` and its standard error over the starts."""
        values = (self.weights * self.nodes**order).sum(1)
        return float(values.mean()), float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")

    def density(self, grid: Tensor, width: float) -> tuple[Tensor, Tensor]:
        """Smooth the distribution by a Gaussian.

        Args:
            grid: Where to evaluate, shape (M,).
            width: Standard deviation of the Gaussian, in the units of the eigenvalues.

        Returns:
            Density and its standard error over the starts, each (M,).
        """
        distance = (grid.double().unsqueeze(-1).unsqueeze(-1) - self.nodes) / width
        values = (self.weights * (-distance.square() / 2).exp()).sum(-1) / (width * (2 * torch.pi) ** 0.5)
        error = (
            values.std(-1) / values.shape[-1] ** 0.5
            if values.shape[-1] > 1
            else torch.full_like(values[:, 0], torch.nan)
        )
        return values.mean(-1), error

    def mass_above(self, threshold: float) -> float:
        """Share of the eigenvalues above a threshold."""
        return float((self.weights * (self.nodes > threshold)).sum(1).mean())


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
        loss_fn: Mean loss, see `decaylab.probes.objective.objective`.
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
        basis = _Basis(Operator(made, matrix), made, made.generator(seed))
        while True:
            basis.step()
            k = len(basis.diagonal)
            if k < num_eigenvalues:
                continue
            theta, s = torch.linalg.eigh(basis.tridiagonal())
            order = {"largest": -theta, "smallest": theta, "magnitude": -theta.abs()}[end].argsort()[:num_eigenvalues]
            residuals = (basis.below[-1] * s[-1]).abs()
            error = torch.stack([_error(theta, residuals, int(i)) for i in order])
            done = bool((error <= rel_error * theta[order].abs()).all())
            if done or k >= min(max_matvecs, made.num_parameters):
                break
        found = [basis.vector(s[:, i]) for i in order] if vectors else []
    return Eigenvalues(
        values=tuple(theta[order].tolist()),
        residuals=tuple(residuals[order].tolist()),
        vectors=tuple(dict(zip(made.names, made.unflat(v), strict=True)) for v in found),
        num_matvecs=k,
        converged=done or k == made.num_parameters,
        seconds=time.perf_counter() - started,
    )


def spectral_density(
    model: nn.Module,
    loss_fn: LossFunction | nn.Module,
    batches: Iterable[Any],
    *,
    num_matvecs: int = 50,
    num_probes: int = 4,
    matrix: Matrix = "hessian",
    seed: int = 0,
    chunk_size: int | None = None,
) -> SpectralDensity:
    """Estimate the density of eigenvalues by stochastic Lanczos quadrature.

    Each random start gives the nodes and weights of a Gauss quadrature (Golub and Welsch 1969) of the density as seen
    from that start; the mean over starts is unbiased (Lin, Saad and Yang 2016).

    Args:
        model: The model, left alone; measured in eval mode and at least float32.
        loss_fn: Mean loss, see `decaylab.probes.objective.objective`.
        batches: The points, see there.
        num_matvecs: Lanczos steps a start: moments up to twice that order are those of the start exactly.
        num_probes: Independent random starts; their spread gives the standard error.
        matrix: ``"hessian"``, ``"gauss_newton"``, ``"residual"`` or ``"covariance"``.
        seed: Of the random starts.
        chunk_size: Points differentiated together.

    Returns:
        The density as weighted points.

    Raises:
        DecaylabError: See `objective`.
    """
    started = time.perf_counter()
    made = objective(model, loss_fn, batches, chunk_size=chunk_size)
    steps = min(num_matvecs, made.num_parameters)
    nodes = torch.zeros(num_probes, steps, dtype=torch.float64)
    weights = torch.zeros_like(nodes)
    generator = made.generator(seed)
    with plain_kernels(made.device):
        operator = Operator(made, matrix)
        for i in range(num_probes):
            basis = _Basis(operator, made, generator)
            for _ in range(steps):
                basis.step()
            nodes[i], s = torch.linalg.eigh(basis.tridiagonal())
            weights[i] = s[0].square()
    return SpectralDensity(nodes, weights, made.num_parameters, operator.num_products, time.perf_counter() - started)


class _Basis:
    """The growing Lanczos basis with its tridiagonal matrix (kept in float64)."""

    def __init__(self, apply: Callable[[Tensor], Tensor], made: Objective, generator: torch.Generator) -> None:
        self._apply = apply
        self._generator = generator
        self._next = torch.randn(made.num_parameters, generator=generator, device=made.device, dtype=made.dtype)
        self._next /= self._next.norm()
        self._rows: list[Tensor] = []
        self.diagonal: list[float] = []
        self.below: list[float] = []  # below[i] couples vectors i and i + 1

    def step(self) -> None:
        q = self._next
        w = self._apply(q)
        self._rows.append(q)
        self.diagonal.append(float(q.double() @ w.double()) if w.device.type != "mps" else float(q @ w))
        before = float(w.norm())
        self._orthogonalise(w)
        after = float(w.norm())
        # nothing but rounding is left: the basis spans an invariant subspace, go on in a fresh direction
        if after <= 1e-5 * before if w.dtype == torch.float32 else after <= 1e-13 * before:
            after = 0.0
            w = torch.randn(w.shape, generator=self._generator, device=w.device, dtype=w.dtype)
            self._orthogonalise(w)
        self.below.append(after)
        self._next = w / w.norm()

    def _orthogonalise(self, w: Tensor) -> None:
        for _ in range(2):
            for q in self._rows:
                w.sub_(q * (q @ w))

    def tridiagonal(self) -> Tensor:
        off = torch.tensor(self.below[:-1], dtype=torch.float64)
        return torch.diag(torch.tensor(self.diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)

    def vector(self, weights: Tensor) -> Tensor:
        total = torch.zeros_like(self._next)
        for weight, q in zip(weights.tolist(), self._rows, strict=True):
            total += weight * q
        return total


def _error(theta: Tensor, residuals: Tensor, i: int) -> Tensor:
    others = torch.cat([theta[:i], theta[i + 1 :]])
    if not len(others):
        return residuals[i]
    gap = (others - theta[i]).abs().min()
    return torch.minimum(residuals[i], residuals[i].square() / gap.clamp(min=1e-300))


@dataclass(frozen=True)
class TopEigenvalues:
    """`top_eigenvalues` as a probe. Keys: ``hessian/eigenvalue/1``, ``.../2`` and so on, the largest first.

    Attributes:
        name: Its row in the table.
        needs: A loss and batches.
        num_eigenvalues: How many.
        rel_error: See `top_eigenvalues`.
        max_matvecs: See there.
        seed: See there.
        chunk_size: See there.
    """

    name: str = "top_eigenvalues"
    needs: frozenset[str] = frozenset({"loss"})
    num_eigenvalues: int = 1
    rel_error: float = 1e-3
    max_matvecs: int = 100
    seed: int = 0
    chunk_size: int | None = None

    def measure(self, context: Context) -> Measurement:
        """Return the eigenvalues of the context's model on its batches."""
        found = top_eigenvalues(
            context.model,
            needed_loss(context),
            context.batches,
            self.num_eigenvalues,
            self.rel_error,
            max_matvecs=self.max_matvecs,
            seed=self.seed,
            chunk_size=self.chunk_size,
        )
        return {f"hessian/eigenvalue/{i}": value for i, value in enumerate(found.values, start=1)}
