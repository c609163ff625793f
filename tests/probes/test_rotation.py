import math

import numpy as np
import pytest
import torch
from torch import nn

from decaylab.probes import ProbeRunner
from decaylab.probes.rotation import angles


class Lion(torch.optim.Optimizer):
    """Sign of an interpolation of momentum and gradient, decoupled decay (Chen et al. 2023)."""

    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * torch.sign(b1 * m + (1 - b1) * p.grad))
                m.mul_(b2).add_(p.grad, alpha=1 - b2)


def test_angle_from_three_norms_against_float64_vectors():
    rng = np.random.default_rng(0)
    old = rng.normal(size=(6, 40))
    new = old + np.array([1e-6, 1e-4, 1e-2, 1.0, 10.0, 1.0])[:, None] * rng.normal(size=(6, 40))
    new[5] = -2 * old[5]
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (old, new))
    exact = 2 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    norms = (torch.tensor(np.linalg.norm(x, axis=1)) for x in (old, new, new - old))
    np.testing.assert_allclose(angles(*norms).numpy(), exact, rtol=1e-6)


MAKERS = {
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.5), math.sqrt(2 * 0.01 * 0.5 * 0.1 / 1.9)),
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.01, weight_decay=0.5), math.sqrt(2 * 0.01 * 0.5)),
    "sgdm": (lambda p: torch.optim.SGD(p, lr=0.001, weight_decay=0.5, momentum=0.9), math.sqrt(2 * 0.001 * 0.5 / 1.9)),
    "lion": (
        lambda p: Lion(p, lr=0.01, betas=(0.8, 0.9), weight_decay=0.5),
        math.sqrt(math.pi / 2 * 2 * 0.01 * 0.5 * (0.2**2 + 0.8**2 * 0.1 / 1.9)),
    ),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_random_gradients_turn_the_weights_as_predicted(maker):
    torch.manual_seed(1)
    net = nn.Linear(60, 50, bias=False)
    make, formula = MAKERS[maker]
    optimizer = make(net.parameters())
    runner = ProbeRunner(["rotation", "timescale"], net, optimizer, every=10)
    found = []
    for step in range(1600):
        net.weight.grad = torch.randn(50, 60)
        runner.before_step(step)
        optimizer.step()
        record = runner.after_step(step)
        if record and record["timescale/passed"] > 3:
            found.append(record)
    mean = {key: np.mean([r[key] for r in found]) for key in found[0]}
    assert len(found) > 50
    assert mean["update/angular_predicted"] == pytest.approx(formula, rel=1e-9)
    # Lion's formula takes the sign's distortion of the momentum for white noise
    tolerance = 0.04 if maker == "lion" else 0.02
    assert mean["update/angular"] == pytest.approx(formula, rel=tolerance)
    assert mean["update/angular_ratio"] == pytest.approx(1, abs=tolerance)
    assert mean["update/relative"] == pytest.approx(mean["update/angular"], rel=0.02)


def test_totals_weigh_tensors_by_their_squared_norm():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 3, bias=False)).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    runner = ProbeRunner(["rotation"], net, optimizer, every=1)
    old = [p.detach().clone() for p in net.parameters()]
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    runner.before_step(0)
    optimizer.step()
    found = runner.after_step(0)
    new = [p.detach() for p in net.parameters()]
    cosines = [float((a * b).sum() / a.norm() / b.norm()) for a, b in zip(old, new, strict=True)]
    squares = np.array([float(a.square().sum()) for a in old])
    expected = math.sqrt(np.average(np.arccos(cosines) ** 2, weights=squares))
    assert found["update/angular"] == pytest.approx(expected, rel=1e-6)
    assert found["update/angular/matrix"] == pytest.approx(math.acos(cosines[0]), rel=1e-6)
    total = math.sqrt(sum(float(p.grad.square().sum()) for p in net.parameters())) * 0.1
    assert found["update/relative"] == pytest.approx(total / math.sqrt(squares.sum()), rel=1e-6)
    assert "update/angular_predicted" not in found  # nothing decays


def test_share_of_decay_is_that_of_the_two_parts():
    torch.manual_seed(0)
    net = nn.Linear(6, 5, bias=False).double()
    for make, part in [
        (lambda: torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.3), "decoupled"),
        (lambda: torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.3), "plain"),
    ]:
        optimizer = make()
        runner = ProbeRunner(["decay_share"], net, optimizer, every=1)
        for step in range(3):
            net.weight.grad = torch.randn(5, 6, dtype=torch.float64)
            old = net.weight.detach().clone()
            runner.before_step(step)
            optimizer.step()
            found = runner.after_step(step)
            decay = -0.1 * 0.3 * old
            rest = net.weight.detach() - old - decay
            expected = float(decay.norm() / (decay.norm() + rest.norm()))
            assert found["update/decay_share"] == pytest.approx(expected, rel=1e-9), part
            assert found["update/decay_share/head"] == found["update/decay_share"]


def test_no_share_without_decay_and_one_for_l2_in_adam():
    net = nn.Linear(6, 5)
    for weight_decay, expected in [(0.0, False), (0.1, True)]:
        optimizer = torch.optim.Adam(net.parameters(), weight_decay=weight_decay)
        runner = ProbeRunner(["decay_share", "rotation", "timescale"], net, optimizer, every=1)
        net(torch.randn(3, 6)).square().sum().backward()
        runner.before_step(0)
        optimizer.step()
        found = runner.after_step(0)
        assert ("update/decay_share" in found) is expected
        assert "update/angular_predicted" not in found and "timescale/passed" not in found
        if expected:
            assert 0 < found["update/decay_share"] < 1


def test_scale_invariant_weights_feel_gradients_at_right_angles_that_shrink_with_their_norm():
    torch.manual_seed(0)
    x = torch.randn(64, 10, dtype=torch.float64)
    results = {}
    for scale in (1.0, 10.0):
        torch.manual_seed(2)
        net = nn.Sequential(nn.Linear(10, 8, bias=False), nn.LayerNorm(8, eps=0.0)).double()
        net[0].weight.data *= scale
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        runner = ProbeRunner(["norms", "rotation", "effective_lr"], net, optimizer, every=1, roles={"0.*": "matrix"})
        net(x).pow(3).mean().backward()
        old = net[0].weight.detach().clone()
        inner = float((old * net[0].weight.grad).sum())
        assert abs(inner) < 1e-12 * float(old.norm() * net[0].weight.grad.norm()) + 1e-14
        runner.before_step(0)
        optimizer.step()
        results[scale] = runner.after_step(0)
    small, large = results[1.0], results[10.0]
    assert large["gradients/norm/matrix"] == pytest.approx(small["gradients/norm/matrix"] / 10, rel=1e-9)
    assert large["update/angular/matrix"] == pytest.approx(small["update/angular/matrix"] / 100, rel=1e-4)
    assert large["effective_lr/plain/matrix"] == pytest.approx(small["effective_lr/plain/matrix"] / 100, rel=1e-4)
