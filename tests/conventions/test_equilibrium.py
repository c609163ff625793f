"""Equilibrium rotation and norm against simulations of the real optimizers on random gradients."""

import math

import pytest
import torch

from decaylab.conventions import RotationInputs, relative_update, rms_weight
from decaylab.errors import DecaylabError

DIMENSION, STEPS, SETTLING = 400, 4000, 1500


class _Lion(torch.optim.Optimizer):
    """Lion as its paper writes it: sign of an interpolated moment, decoupled decay."""

    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                moment = self.state[p].setdefault("moment", torch.zeros_like(p))
                update = (beta1 * moment + (1 - beta1) * p.grad).sign()
                moment.mul_(beta2).add_(p.grad, alpha=1 - beta2)
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * update)


def _simulate(make):
    """Return mean rotation in radians and mean RMS of the weight after settling."""
    generator = torch.Generator().manual_seed(11)
    gradients = torch.randn(STEPS, DIMENSION, generator=generator)
    p = torch.nn.Parameter(0.1 * torch.randn(DIMENSION, generator=generator))
    optimizer = make([p])
    rotation = size = 0.0
    for step in range(STEPS):
        old = p.detach().clone()
        p.grad = gradients[step].clone()
        optimizer.step()
        if step >= SETTLING:
            cosine = torch.nn.functional.cosine_similarity(old.double(), p.detach().double(), dim=0)
            rotation += math.acos(min(cosine.item(), 1.0))
            size += p.detach().pow(2).mean().sqrt().item()
    return rotation / (STEPS - SETTLING), size / (STEPS - SETTLING)


def test_adamw_within_two_percent():
    rotation, size = _simulate(lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.2))
    inputs = RotationInputs(optimizer="adamw")
    assert relative_update(0.01 * 0.2, inputs) == pytest.approx(rotation, rel=0.02)
    assert rms_weight(0.01 * 0.2, 0.01, inputs) == pytest.approx(size, rel=0.03)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.05), (0.9, 0.01)])
def test_sgd_within_two_percent(momentum, weight_decay):
    rotation, _ = _simulate(lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=weight_decay, momentum=momentum))
    inputs = RotationInputs(optimizer="sgd", momentum=momentum)
    ours = relative_update(0.1 * weight_decay / (1 - momentum), inputs)
    assert ours == pytest.approx(rotation, rel=0.02)
    assert ours == pytest.approx(math.sqrt(2 * 0.1 * weight_decay / (1 + momentum)))


def test_lion_within_ten_percent():
    """Looser: the closed form takes the correlation of signs to be that of their arguments."""
    rotation, size = _simulate(lambda p: _Lion(p, 0.01, (0.9, 0.99), 0.1))
    inputs = RotationInputs(optimizer="lion", betas=(0.9, 0.99))
    assert relative_update(0.01 * 0.1, inputs) == pytest.approx(rotation, rel=0.1)
    assert rms_weight(0.01 * 0.1, 0.01, inputs) == pytest.approx(size, rel=0.1)


def test_closed_forms():
    assert relative_update(5e-3, RotationInputs(betas=(0.9, 0.95))) == pytest.approx(0.02294, abs=5e-6)
    assert rms_weight(4e-4 * 0.1, 4e-4, RotationInputs()) == pytest.approx(math.sqrt(4e-4 / 0.2))
    assert relative_update(1e-3, RotationInputs(optimizer="muon")) is None
    assert rms_weight(1e-3, 0.1, RotationInputs(optimizer="sgd")) is None
    assert rms_weight(0.0, 0.1, RotationInputs()) is None
    with pytest.raises(DecaylabError, match="betas"):
        RotationInputs(betas=(0.9, 1.0))
