"""The curvature probes as rows of the table: keys, and that a model by itself can be measured with each."""

import math

import pytest
import torch
from tests.support.exact_curvature import exact
from torch import nn
from torch.nn import functional as F

from decaylab import probes
from decaylab.models import preact_resnet

KEYS = {
    "hessian_trace": {"hessian/trace", "hessian/trace/stderr"},
    "gauss_newton_trace": {"gauss_newton/trace", "gauss_newton/trace/stderr"},
    "top_eigenvalues": {"hessian/eigenvalue/1"},
    "jacobian": {"jacobian/frobenius", "jacobian/frobenius/stderr"},
    "covariance": {
        "covariance/split_error",
        *(f"covariance/cosine/{part}" for part in ("hessian", "gauss_newton", "residual")),
        *(f"covariance/cosine/{part}/stderr" for part in ("hessian", "gauss_newton", "residual")),
    },
}
ROLES = {"hessian_trace", "gauss_newton_trace", "jacobian"}


def _loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("name", KEYS)
def test_measured_alone(name):
    torch.manual_seed(0)
    net = preact_resnet("small", num_classes=3, in_channels=1, width=4, blocks=1)
    x, y = torch.randn(10, 1, 8, 8), torch.randint(3, (10,))
    net(x)
    assert net.training
    found = probes.measure(name, net, [(x[:6], y[:6]), (x[6:], y[6:])], _loss, seed=1)
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())
    key = min(KEYS[name], key=len)
    roles = {f"{key}/{role}" for role in ("matrix", "head", "norm", "bias")} if name in ROLES else set()
    assert set(found) == KEYS[name] | roles
    assert net.training


def test_averages_can_be_measured():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x, y = torch.randn(9, 4), torch.randint(3, (9,))
    average = {name: p.detach() * 1.3 for name, p in net.named_parameters()}
    found = probes.measure("hessian_trace", net, [(x, y)], _loss, weights=average)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1.3)
    assert found["hessian/trace"] == pytest.approx(float(exact(net, F.cross_entropy, x, y).hessian.trace()), rel=1e-5)
