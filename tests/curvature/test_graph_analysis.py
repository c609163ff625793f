"""Which networks have the diagonal of the Gauss-Newton matrix in their Hessian: the analysis against the matrices."""

import pytest
import torch
from tests.support.exact_curvature import TiedNet, conv_net, exact
from torch import nn
from torch.nn import functional as F

from decaylab.curvature.graph_analysis import SMOOTH, nodes, operation, second_derivative, structure
from decaylab.curvature.model_copy import plain_kernels
from decaylab.curvature.prepare import objective
from decaylab.models import GPT, preact_resnet, vgg_small


class Net(nn.Module):
    """A linear map on each side of any function."""

    def __init__(self, middle):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.middle = nn.Linear(4, 6), nn.Linear(6, 3), middle

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


class Custom(torch.autograd.Function):
    """Calls itself Relu, and is not one."""

    @staticmethod
    def forward(ctx, x):
        return x**3

    @staticmethod
    def backward(ctx, g):
        return g


Custom.__name__ = "Relu"

PIECEWISE = {
    "relu": F.relu,
    "leaky": lambda h: F.leaky_relu(h, 0.2),
    "hardtanh": F.hardtanh,
    "relu6": F.relu6,
    "abs": torch.abs,
    "clamp": lambda h: h.clamp(min=0.1, max=2),
    "maximum": lambda h: torch.maximum(h, 2 * h - 1),
    "where": lambda h: torch.where(h > 0, h, 0.1 * h),
    "prelu": nn.PReLU(),
    "norm": nn.BatchNorm1d(6),
    "scaled": lambda h: h * 0.3 / 2 + 1,
    "flips": lambda h: torch.cat([h[:, 3:], -h[:, :3].flip(1)], 1),
    "pool": lambda h: F.max_pool1d(h.unsqueeze(1), 2).repeat(1, 2, 1).flatten(1),
    "dropout": nn.Dropout(0.5),
}
SMOOTH_UNITS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda h: F.gelu(h, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": lambda h: F.softplus(h, beta=2),
    "mish": F.mish,
    "sin": torch.sin,
    "cos": torch.cos,
    "exp": torch.exp,
    "square": lambda h: F.relu(h) ** 2,
    "both": lambda h: torch.tanh(F.relu(h)),
}
GENERAL = {
    "product": lambda h: h * h.flip(1),
    "gate": lambda h: torch.sigmoid(h) * h,
    "softmax": lambda h: h.softmax(1),
    "layer norm": nn.LayerNorm(6),
    "division": lambda h: h / (1 + h.square()),
    "custom": Custom.apply,
}


@pytest.mark.parametrize("name", [*PIECEWISE, *SMOOTH_UNITS, *GENERAL])
def test_functions_between_linear_maps(name):
    middle = (PIECEWISE | SMOOTH_UNITS | GENERAL)[name]
    net = Net(middle)
    x = torch.randn(3, 4)
    found = structure(objective(net, None, [x]))
    expected = "piecewise linear" if name in PIECEWISE else "smooth units" if name in SMOOTH_UNITS else "general"
    assert found.kind == expected, found.reason
    assert bool(found.reason) == (expected == "general")


@pytest.mark.parametrize("name", PIECEWISE)
def test_a_piecewise_linear_network_has_no_residual_diagonal(name):
    net = Net(PIECEWISE[name])
    truth = exact(net, F.cross_entropy, torch.randn(5, 4), torch.randint(3, (5,)))
    assert truth.residual.diagonal().abs().max() < 1e-12


@pytest.mark.parametrize("name", SMOOTH_UNITS)
def test_second_derivatives_of_activations(name):
    h = torch.linspace(-2, 2, 9, dtype=torch.float64).add(0.01).requires_grad_()
    smooth = [node for node in nodes(SMOOTH_UNITS[name](h)) if operation(node) in SMOOTH]
    assert len(smooth) == 1
    inner = F.relu(h) if name in ("square", "both") else h
    outer = {"square": torch.square, "both": torch.tanh}.get(name, SMOOTH_UNITS[name])
    expected = torch.stack([torch.func.grad(torch.func.grad(outer))(v) for v in inner.detach()])
    torch.testing.assert_close(second_derivative(smooth[0]).detach(), expected)


def test_own_networks():
    x = torch.randn(2, 1, 8, 8)
    for kwargs in ({}, {"scale_invariant": True}, {"input_norm": True}):
        net = preact_resnet("small", in_channels=1, **kwargs)
        assert structure(objective(net, None, [x])).kind == "piecewise linear"
    gelu = preact_resnet("small", in_channels=1, activation="gelu")
    assert structure(objective(gelu, None, [x])).kind == "smooth units"
    assert structure(objective(vgg_small(in_channels=1), None, [x])).kind == "piecewise linear"
    made = objective(GPT(7, 4, 1, 2, 8), None, [torch.zeros(2, 4).long()])
    with plain_kernels(made.device):
        assert structure(made).kind == "general"


def test_a_tensor_used_twice_is_found():
    found = structure(objective(TiedNet(), None, [torch.randn(2, 4)]))
    assert found.kind == "general"
    assert "matrix" in found.reason
    net, x, _ = conv_net()
    net.conv1.weight.requires_grad_(False)  # what is not trained does not count
    assert structure(objective(net, None, [x])).kind == "piecewise linear"


@pytest.mark.parametrize("library", ["Native", "Cudnn", "Miopen"])
def test_batchnorm_is_batchnorm_whatever_library_does_it(library, monkeypatch):
    net = preact_resnet("small", in_channels=1, width=2).eval()
    batches = [(torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))]
    found = objective(net, F.cross_entropy, batches)
    original = nodes

    class Renamed:
        """A node of the graph, with the name that it has where the library is used."""

        def __init__(self, node):
            self._node = node

        def name(self):
            return self._node.name().replace("Native", library)

        def __getattr__(self, attribute):
            return getattr(self._node, attribute)

        def __hash__(self):
            return hash(self._node)

        def __eq__(self, other):
            return self._node == getattr(other, "_node", other)

    monkeypatch.setattr("decaylab.curvature.graph_analysis.nodes", lambda z: map(Renamed, original(z)))
    assert structure(found).kind == "piecewise linear"
