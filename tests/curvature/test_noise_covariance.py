"""Cosines between products with the noise covariance and with the Hessian's parts, against the matrices."""

import pytest
import torch
from tests.support.exact_curvature import conv_net, exact, mlp
from torch import nn
from torch.nn import functional as F

from decaylab.curvature.noise_covariance import covariance_similarity
from decaylab.curvature.prepare import objective
from decaylab.errors import DecaylabError
from decaylab.models import preact_resnet


def test_cosines_equal_those_of_the_matrices():
    net, x, y = mlp()
    truth = exact(net, F.cross_entropy, x, y)
    net = net.double()
    found = covariance_similarity(net, F.cross_entropy, [(x, y)], num_vectors=6, seed=5, chunk_size=4)
    generator = objective(net, None, [x]).generator(5)
    expected = []
    for _ in range(6):
        v = torch.randn(sum(truth.sizes), generator=generator, dtype=torch.float64)
        s = truth.covariance @ v
        products = (m @ v for m in (truth.hessian, truth.gauss_newton, truth.residual))
        expected.append([float(F.cosine_similarity(p, s, dim=0)) for p in products])
    table = torch.tensor(expected, dtype=torch.float64)
    for part, column in zip((found.hessian, found.gauss_newton, found.residual), table.T, strict=True):
        assert part.value == pytest.approx(float(column.mean()), rel=1e-9)
        assert part.stderr == pytest.approx(float(column.std()) / 6**0.5, rel=1e-9)
    assert found.split_error < 1e-12


def test_a_linear_model_has_no_residual():
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    found = covariance_similarity(net, F.cross_entropy, [(torch.randn(9, 4), torch.randint(3, (9,)))], num_vectors=3)
    assert found.residual.value != found.residual.value  # nan
    assert found.hessian.value == pytest.approx(found.gauss_newton.value)


def test_own_network_in_float32():
    torch.manual_seed(0)
    net = preact_resnet("small", num_classes=4, in_channels=1, width=4, blocks=1, scale_invariant=True)
    x, y = torch.randn(20, 1, 8, 8), torch.randint(4, (20,))
    net(x)
    found = covariance_similarity(net, F.cross_entropy, [(x, y)], num_vectors=3)
    assert found.split_error < 1e-4
    assert 0 < found.gauss_newton.value <= 1


def test_a_penalty_in_the_loss_is_refused():
    net, x, y = conv_net()

    def penalised(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1]) + sum(p.square().sum() for p in model.parameters())

    with pytest.raises(DecaylabError, match="penalty"):
        covariance_similarity(net, penalised, [(x, y)], num_vectors=2)
    with pytest.raises(DecaylabError, match="at least 2"):
        covariance_similarity(net, F.cross_entropy, [(x, y)], num_vectors=1)
