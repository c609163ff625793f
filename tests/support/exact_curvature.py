"""Curvature the slow way: whole matrices in float64, for networks of a few hundred parameters."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decaylab.models import GPT


@dataclass(frozen=True)
class Exact:
    names: list[str]
    sizes: list[int]
    hessian: Tensor
    gauss_newton: Tensor
    jacobian: Tensor  # (N * outputs, P)
    gradients: Tensor  # (N, P), one row a point
    num_points: int

    @property
    def residual(self):
        return self.hessian - self.gauss_newton

    @property
    def covariance(self):
        centred = self.gradients - self.gradients.mean(0)
        return centred.T @ centred / self.num_points

    def traces(self, matrix):
        """Trace of every tensor's diagonal block."""
        parts = matrix.diagonal().split(self.sizes)
        return {name: float(part.sum()) for name, part in zip(self.names, parts, strict=True)}


def exact(model, loss_fn, x, y):
    """All matrices of the mean loss ``loss_fn(outputs, y)`` over the trainable parameters."""
    model = copy.deepcopy(model).double().eval()
    x = x.double() if x.is_floating_point() else x
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    names, shapes, sizes = zip(*[(n, p.shape, p.numel()) for n, p in trainable], strict=True)
    flat = torch.cat([p.detach().reshape(-1) for _, p in trainable])

    def outputs(v, inputs=x):
        parts = {n: t.view(s) for n, t, s in zip(names, v.split(sizes), shapes, strict=True)}
        return torch.func.functional_call(model, parts, (inputs,))

    z = outputs(flat).detach()
    jacobian = torch.func.jacrev(outputs)(flat).reshape(-1, len(flat))
    slope = torch.func.hessian(lambda out: loss_fn(out, y))(z).reshape(z.numel(), z.numel())
    gradients = torch.stack(
        [torch.func.grad(lambda v, n=n: loss_fn(outputs(v, x[n : n + 1]), y[n : n + 1]))(flat) for n in range(len(x))]
    )
    hessian = torch.func.jacrev(torch.func.grad(lambda v: loss_fn(outputs(v), y)))(flat)
    return Exact(list(names), list(sizes), hessian, jacobian.T @ slope @ jacobian, jacobian, gradients, len(x))


class ConvNet(nn.Module):
    """Convolutions with stride and groups, BatchNorm with and without gains, a skip, a linear head."""

    def __init__(self, activation):
        super().__init__()
        self.activation = activation
        self.conv1, self.norm1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(6, affine=False)
        self.shortcut = nn.Conv2d(4, 6, 1, stride=2, bias=False)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        h = self.activation(self.norm1(self.conv1(x)))
        h = self.activation(self.norm2(self.conv2(h)) + self.shortcut(h))
        return self.head(h.mean((2, 3)))


class TiedNet(nn.Module):
    """One matrix used twice: the outputs are quadratic in it."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 6) / 2)

    def forward(self, x):
        return F.relu(x @ self.matrix) @ self.matrix.T


def conv_net(activation=F.relu, seed=0):
    torch.manual_seed(seed)
    net = ConvNet(activation)
    net(torch.randn(50, 1, 5, 5))  # running statistics
    return net, torch.randn(8, 1, 5, 5), torch.randint(4, (8,))


def mlp(activation=nn.Tanh, seed=0, num_outputs=3, num_points=9):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, 5), activation(), nn.Linear(5, num_outputs))
    return net, torch.randn(num_points, 4), torch.randint(num_outputs, (num_points,))


def tied(seed=0):
    torch.manual_seed(seed)
    return TiedNet(), torch.randn(6, 4), torch.randint(4, (6,))


def gpt(tied=False, seed=0):
    torch.manual_seed(seed)
    net = GPT(7, 4, 1, 2, 8, tied=tied, init_std=0.3)
    return net, torch.randint(7, (5, 4)), torch.randint(7, (5, 4))


def token_loss(outputs, targets):
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())
