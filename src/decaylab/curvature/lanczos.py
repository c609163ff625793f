r"""How does a symmetric matrix over the parameters become a small tridiagonal one?

The Lanczos recursion (1950) turns k products with a symmetric matrix A into an orthonormal basis Q and a k x k
tridiagonal :math:`T = Q^\top A Q`. Extreme eigenvalues of T converge first to those of A; and for a random start, the
eigenvalues of T weighted by the squared first entries of its eigenvectors are a Gauss quadrature of the spectral
density of A. In floating point the basis loses orthogonality as soon as an eigenvalue converges, and copies appear:
every new vector is orthogonalised against the whole basis, twice.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from decaylab.curvature.objective import Objective


class LanczosBasis:
    """The growing Lanczos basis with its tridiagonal matrix (kept in float64).

    Args:
        apply: Multiplies a flat vector by the matrix.
        made: Gives size, device and precision of the vectors.
        generator: Source of the start, and of a fresh direction where the basis spans an invariant subspace.

    Attributes:
        diagonal: Diagonal of T, one entry a step.
        below: What couples each vector to the next, the last one to a vector that is not in the basis yet.
    """

    def __init__(self, apply: Callable[[Tensor], Tensor], made: Objective, generator: torch.Generator) -> None:
        self._apply = apply
        self._generator = generator
        self._next = torch.randn(made.num_parameters, generator=generator, device=made.device, dtype=made.dtype)
        self._next /= self._next.norm()
        self._rows: list[Tensor] = []
        self.diagonal: list[float] = []
        self.below: list[float] = []

    def step(self) -> None:
        """Add one vector, for one product with the matrix."""
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

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of the tridiagonal matrix; nan for a network that has diverged."""
        off = torch.tensor(self.below[:-1], dtype=torch.float64)
        diagonal = torch.tensor(self.diagonal, dtype=torch.float64)
        matrix = torch.diag(diagonal) + torch.diag(off, 1) + torch.diag(off, -1)
        if not bool(matrix.isfinite().all()):
            return torch.full_like(diagonal, torch.nan), torch.full_like(matrix, torch.nan)
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors

    def vector(self, weights: Tensor) -> Tensor:
        """Combine the basis vectors: with a column of `ritz`, an approximate eigenvector."""
        total = torch.zeros_like(self._next)
        for weight, q in zip(weights.tolist(), self._rows, strict=True):
            total += weight * q
        return total
