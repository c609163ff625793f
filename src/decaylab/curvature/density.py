r"""How are the eigenvalues of the Hessian distributed?"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from decaylab.curvature.lanczos import LanczosBasis
from decaylab.curvature.model_copy import plain_kernels
from decaylab.curvature.operators import Matrix, Operator
from decaylab.curvature.prepare import objective
from decaylab.curvature.types import LossFunction


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
        loss_fn: Mean loss, see `decaylab.curvature.prepare.objective`.
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
            basis = LanczosBasis(operator, made, generator)
            for _ in range(steps):
                basis.step()
            nodes[i], s = basis.ritz()
            weights[i] = s[0].square()
    return SpectralDensity(nodes, weights, made.num_parameters, operator.num_products, time.perf_counter() - started)
