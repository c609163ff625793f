"""Powerpropagation: golden values, its gradient at zero, and what decay does to the weight behind it."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from decaylab import decay
from decaylab.errors import DecaylabError


def test_golden_values():
    phi = torch.tensor([0.5, -1.5, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    w = decay.Powerpropagation(3.0)(phi)
    w.sum().backward()
    assert w.tolist() == pytest.approx([0.125, -3.375, 0.0, 8.0], abs=1e-12)
    assert phi.grad.tolist() == pytest.approx([0.75, 6.75, 0.0, 12.0], abs=1e-12)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 4.0])
def test_gradient_and_curvature(alpha):
    phi = torch.tensor([0.7, -1.2, 0.3], dtype=torch.float64, requires_grad=True)
    power = decay.Powerpropagation(alpha)
    assert torch.autograd.gradcheck(power, phi)
    assert torch.autograd.gradgradcheck(power, phi)
    zero = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    power(zero).sum().backward()
    assert zero.grad.tolist() == ([1.0, 1.0] if alpha == 1 else [0.0, 0.0])
    torch.testing.assert_close(power(power.right_inverse(phi.detach())), phi.detach())


def test_under_vmap():
    phi = torch.randn(3, 4, dtype=torch.float64)
    power = decay.Powerpropagation(2.5)
    jacobian = torch.func.vmap(torch.func.grad(lambda x: power(x).sum()))(phi)
    torch.testing.assert_close(jacobian, 2.5 * phi.abs() ** 1.5)


def test_a_model_keeps_its_function_and_its_biases():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)).double()
    x = torch.randn(5, 1, 4, 4, dtype=torch.float64)
    before = model(x)
    assert decay.powerpropagate(model, 3.0) == ["0", "2"]
    torch.testing.assert_close(model(x), before)
    assert not parametrize.is_parametrized(model[0], "bias")


def test_decay_of_phi_is_a_stronger_decay_of_the_weight():
    layer = nn.Linear(4, 3, bias=False).double()
    decay.powerpropagate(layer, 3.0)
    start = layer.weight.detach().clone()
    opt = torch.optim.SGD(layer.parameters(), lr=0.5)
    decay.attach(opt, decay.Decoupled(0.2))
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    opt.step()
    torch.testing.assert_close(layer.weight.detach(), start * 0.9**3)


def test_mistakes_are_named():
    with pytest.raises(DecaylabError, match="alpha of powerpropagation must be at least 1"):
        decay.Powerpropagation(0.5)
    with pytest.raises(DecaylabError, match="no layer"):
        decay.powerpropagate(nn.Sequential(nn.ReLU()))
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    with pytest.raises(DecaylabError, match="0 and 1 share a weight"):
        decay.powerpropagate(tied)
    layer = nn.Linear(2, 2)
    decay.powerpropagate(layer)
    with pytest.raises(DecaylabError, match="already has a parametrization"):
        decay.powerpropagate(layer)
