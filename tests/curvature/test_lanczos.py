"""Eigenvalues and their density against the eigenvalues of the matrix itself."""

import pytest
import torch
from tests.support.exact_curvature import conv_net, exact, gpt, mlp, token_loss
from torch import nn
from torch.nn import functional as F

from decaylab.curvature.density import spectral_density
from decaylab.curvature.eigenvalues import top_eigenvalues
from decaylab.errors import DecaylabError


@pytest.fixture(scope="module")
def tanh_net():
    net, x, y = mlp()
    truth = exact(net, F.cross_entropy, x, y)
    return net.double(), [(x.double(), y)], truth


@pytest.mark.parametrize("end", ["largest", "smallest", "magnitude"])
def test_outermost_eigenvalues(tanh_net, end):
    net, data, truth = tanh_net
    values = torch.linalg.eigvalsh(truth.hessian)
    order = {"largest": values.flip(0), "smallest": values, "magnitude": values[values.abs().argsort(descending=True)]}
    found = top_eigenvalues(net, F.cross_entropy, data, 3, 1e-6, end=end, vectors=True)
    assert found.converged
    torch.testing.assert_close(torch.tensor(found.values, dtype=torch.float64), order[end][:3], rtol=1e-5, atol=1e-8)
    for value, residual, parts in zip(found.values, found.residuals, found.vectors, strict=True):
        q = torch.cat([t.flatten() for t in parts.values()])
        assert list(parts) == truth.names
        assert float(q.norm()) == pytest.approx(1)
        assert float((truth.hessian @ q - value * q).norm()) == pytest.approx(residual, rel=1e-3, abs=1e-8)


@pytest.mark.parametrize("matrix", ["gauss_newton", "residual", "covariance"])
def test_other_matrices(tanh_net, matrix):
    net, data, truth = tanh_net
    found = top_eigenvalues(net, F.cross_entropy, data, 1, 1e-8, matrix=matrix)
    largest = float(torch.linalg.eigvalsh(getattr(truth, matrix))[-1])
    assert found.values[0] == pytest.approx(largest, rel=1e-6)


def test_float32_convolutions_and_attention():
    for (net, x, y), loss in ((conv_net(), F.cross_entropy), (gpt(), token_loss)):
        truth = exact(net, loss, x, y)
        found = top_eigenvalues(net, lambda m, b, loss=loss: loss(m(b[0]), b[1]), [(x, y)], 2, 1e-4, chunk_size=3)
        values = torch.linalg.eigvalsh(truth.hessian).flip(0)[:2].tolist()
        assert found.values == pytest.approx(values, rel=1e-3)
        assert found.num_matvecs < 60


def test_repeated_eigenvalues_and_invariant_subspaces():
    """Two outputs of the squared loss share every eigenvalue; from one start only one copy can be seen."""
    torch.manual_seed(0)
    net = nn.Linear(3, 2, bias=False).double()
    x, y = torch.randn(10, 3, dtype=torch.float64), torch.randn(10, 2, dtype=torch.float64)
    expected = torch.linalg.eigvalsh(exact(net, F.mse_loss, x, y).hessian).flip(0)
    found = top_eigenvalues(net, F.mse_loss, [(x, y)], 6, 1e-9)
    assert found.values == pytest.approx(expected.tolist())
    assert found.num_matvecs == 6


def test_the_density_has_the_moments_of_the_spectrum(tanh_net):
    net, data, truth = tanh_net
    values = torch.linalg.eigvalsh(truth.hessian)
    found = spectral_density(net, F.cross_entropy, data, num_matvecs=12, num_probes=40)
    assert found.num_matvecs == 480 and found.num_parameters == len(values)
    torch.testing.assert_close(found.weights.sum(1), torch.ones(40, dtype=torch.float64))
    for order in (1, 2, 3):
        mean, error = found.moment(order)
        assert abs(mean - float((values**order).mean())) < 4 * error
    grid = torch.linspace(-3, 10, 400)
    density, error = found.density(grid, 0.2)
    distance = (grid.double().unsqueeze(1) - values) / 0.2
    smooth = (-distance.square() / 2).exp().mean(1) / (0.2 * (2 * torch.pi) ** 0.5)
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-3)
    assert ((density - smooth).abs() <= 4 * error + 0.02 * smooth.max()).double().mean() > 0.97
    assert found.mass_above(float("-inf")) == pytest.approx(1)


def test_mistakes():
    net, x, y = mlp()
    for options, message in (
        ({"num_eigenvalues": 0}, "between 1 and"),
        ({"end": "top"}, "unknown end"),
        ({"matrix": "fisher"}, "unknown matrix"),
    ):
        with pytest.raises(DecaylabError, match=message):
            top_eigenvalues(net, F.cross_entropy, [(x, y)], **options)
    assert not top_eigenvalues(net, F.cross_entropy, [(x, y)], 3, max_matvecs=3).converged
