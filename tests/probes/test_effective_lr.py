import math

import numpy as np
import pytest
import torch
from torch import nn

from decaylab.probes import ProbeRunner, measure


def _step(runner, optimizer, step=0):
    runner.before_step(step)
    optimizer.step()
    return runner.after_step(step)


def test_three_forms_in_closed_form():
    net = nn.Linear(4, 3, bias=False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.02, weight_decay=0.5)
    net.weight.grad = torch.randn(3, 4)
    found = _step(ProbeRunner(["effective_lr"], net, optimizer, every=1), optimizer)
    norm = float(net.weight.detach().double().norm())
    assert found["effective_lr"] == pytest.approx(0.02 / ((1 - 0.02 * 0.5) * norm), rel=1e-6)
    assert found["effective_lr/adaptive"] == pytest.approx(0.02 / norm, rel=1e-6)
    assert found["effective_lr/plain"] == pytest.approx(0.02 / norm**2, rel=1e-6)


@pytest.mark.parametrize("rate", [0.0, torch.tensor(0.0)])
def test_a_step_with_learning_rate_zero_has_none(rate):
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.5)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    found = _step(ProbeRunner(["effective_lr"], net, optimizer, every=1), optimizer)
    for key in ("effective_lr", "effective_lr/adaptive", "effective_lr/plain"):
        assert found[key] == found[f"{key}/matrix"] == found[f"{key}/bias"] == 0


def test_groups_are_weighted_by_the_norm_they_act_on():
    net = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    groups = [
        {"params": [net[0].weight], "lr": 0.1, "weight_decay": 0.2},
        {"params": [net[0].bias, net[1].weight], "lr": 0.3},
    ]
    found = measure("effective_lr", net, optimizer=torch.optim.SGD(groups, lr=0.0))
    norms = np.array([float(p.detach().norm()) for p in (net[0].weight, net[0].bias, net[1].weight)])
    rates = np.array([0.1 / (1 - 0.02), 0.3, 0.3])
    assert found["effective_lr"] == pytest.approx(np.sqrt(np.sum((rates * norms) ** 2)) / np.sum(norms**2), rel=1e-5)
    assert found["effective_lr/head"] == pytest.approx(rates[0] / norms[0], rel=1e-5)
    assert found["effective_lr/norm"] == pytest.approx(0.3 / norms[2], rel=1e-5)  # the unmoved bias is left out


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_it_is_the_learning_rate_of_the_direction_under_sign_descent(decay):
    # w' = (1 - lr wd) w - lr s has the direction of w/|w| - e s with e the effective learning rate
    w, s, lr = np.array([3.0, -4.0, 1.0]), np.array([1.0, 1.0, -1.0]), 0.05
    net = nn.Linear(3, 1, bias=False).double()
    net.weight.data = torch.tensor(w[None])
    e = measure("effective_lr", net, optimizer=torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=decay))
    moved, turned = (1 - lr * decay) * w - lr * s, w / np.linalg.norm(w) - e["effective_lr"] * s
    np.testing.assert_allclose(moved / np.linalg.norm(moved), turned / np.linalg.norm(turned), rtol=1e-12)


def test_adam_rate_is_that_of_the_update():
    torch.manual_seed(0)
    net = nn.Linear(50, 40, bias=False).double()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, betas=(0.0, 0.95), eps=1e-4, weight_decay=0.0)
    runner = ProbeRunner(["adam_rate"], net, optimizer, every=1)
    for step in range(5):
        net.weight.grad = torch.randn(40, 50, dtype=torch.float64)
        old = net.weight.detach().clone()
        found = _step(runner, optimizer, step)
        # without first moment the update is rate * gradient, coordinate by coordinate
        rates = np.sort(((old - net.weight.detach()) / net.weight.grad).numpy().ravel())
        for p in (10, 50, 90):
            assert found[f"adam_rate/p{p}"] == pytest.approx(rates[round((rates.size - 1) * p / 100)], rel=1e-9)
    mean_square = np.mean((0.01 / rates - 1e-4) ** 2)
    assert found["adam_rate"] == pytest.approx(0.01 / (math.sqrt(mean_square) + 1e-4), rel=1e-9)
    assert found["adam_rate/head"] == pytest.approx(found["adam_rate"])


def test_adam_rate_is_silent_where_there_are_no_second_moments():
    net = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    assert measure("adam_rate", net, optimizer=optimizer) == {}
    assert measure("adam_rate", net, optimizer=torch.optim.Adam(net.parameters())) == {}


def test_weights_of_no_optimizer_have_none():
    net = nn.Linear(4, 3)
    optimizer = torch.optim.SGD([{"params": [net.weight], "lr": 0.0}], lr=0.1)
    found = measure("effective_lr", net, optimizer=optimizer)
    assert found["effective_lr"] == found["effective_lr/head"] == 0
    assert math.isnan(found["effective_lr/bias"])
