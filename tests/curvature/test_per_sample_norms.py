"""Squared gradient norms of single points by layer kernels, against single gradients."""

import pytest
import torch
from tests.support.exact_curvature import TiedNet, gpt
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from decaylab.curvature.model_copy import plain_kernels
from decaylab.curvature.per_sample_norms import GhostNorms
from decaylab.curvature.prepare import objective


class _Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class _Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain, self.linear = nn.Parameter(torch.randn(4)), nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(self.gain * x)


class _Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(F.relu(self.linear(x)))


class _Borrowed(nn.Module):
    """Uses a layer's weight behind its back."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x) @ self.linear.weight


class _Positions(nn.Module):
    """A positional embedding: one look-up for all points."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(9, 4, padding_idx=0), nn.Embedding(3, 4)

    def forward(self, x):
        return self.tokens(x) + self.positions(torch.arange(3))


class _TimeFirst(nn.Module):
    """Hands its layer the points along the second dimension."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x.transpose(0, 1)).transpose(0, 1)


def _seeded(build):
    torch.manual_seed(0)
    return build()


X = {
    "flat": lambda: torch.randn(7, 4),
    "sequence": lambda: torch.randn(7, 5, 4),
    "three": lambda: torch.randn(7, 3, 4),
    "line": lambda: torch.randn(7, 4, 9),
    "image": lambda: torch.randn(7, 4, 8, 9),
    "tokens": lambda: torch.randint(9, (7, 3)),
}
# name -> (network, input, names that no kernel covers)
CASES = {
    "linear": (lambda: nn.Linear(4, 3), "flat", ()),
    "linear over few positions": (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6)), "sequence", ()),
    "linear over many positions": (lambda: nn.Linear(4, 2), "sequence", ()),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), "line", ()),
    "conv1d circular": (lambda: nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"), "line", ()),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, padding=(1, 0), stride=(2, 1), dilation=(1, 2)), "image", ()),
    "conv2d grouped": (lambda: nn.Conv2d(4, 8, 3, groups=4, bias=False), "image", ()),
    "conv2d small": (lambda: nn.Conv2d(4, 20, 5, stride=3), "image", ()),
    "conv2d 1x1": (lambda: nn.Conv2d(4, 5, 1, stride=2), "image", ()),
    "conv2d same": (lambda: nn.Conv2d(4, 5, (1, 3), padding="same", dilation=2), "image", ()),
    "conv2d valid": (lambda: nn.Conv2d(4, 5, 3, padding="valid"), "image", ()),
    "conv2d reflect": (lambda: nn.Conv2d(4, 5, 3, padding=(2, 1), padding_mode="reflect"), "image", ()),
    "norms": (lambda: nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm((8, 9))), "image", ()),
    "flat norms": (lambda: nn.Sequential(nn.BatchNorm1d(4), nn.LayerNorm(4), nn.RMSNorm(4)), "flat", ()),
    "sequence norms": (lambda: nn.Sequential(nn.LayerNorm(4), nn.RMSNorm(4)), "sequence", ()),
    "embedding": (_Positions, "tokens", ("positions.weight",)),
    "own forward": (lambda: _Scaled(4, 3), "flat", ("weight", "bias")),
    "bare": (_Bare, "flat", ("gain",)),
    "twice": (_Twice, "flat", ("linear.weight", "linear.bias")),
    "borrowed": (_Borrowed, "flat", ("linear.weight",)),
    "tied": (TiedNet, "flat", ("matrix",)),
    "time first": (_TimeFirst, "three", ("linear.weight", "linear.bias")),
    "weight norm": (
        lambda: parametrizations.weight_norm(nn.Linear(4, 3)),
        "flat",
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ),
    "transposed": (lambda: nn.ConvTranspose2d(4, 3, 2), "image", ("weight", "bias")),
    "gpt": (lambda: gpt()[0], None, ("transformer.wte.weight", "transformer.wpe.weight")),
    "tied gpt": (lambda: gpt(tied=True)[0], None, ("transformer.wte.weight", "transformer.wpe.weight")),
}


@pytest.mark.parametrize("case", CASES)
def test_norms_equal_those_of_single_gradients(case):
    build, kind, uncovered = CASES[case]
    net = _seeded(build).double()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    x = gpt()[1] if kind is None else X[kind]()
    x = x.double() if x.is_floating_point() else x
    made = objective(net, None, [x])
    with plain_kernels(made.device):
        ghost = GhostNorms(made)
        assert set(ghost.uncovered) == set(uncovered)
        run = ghost.forward(x)
        rows = torch.randn_like(run.outputs)
        found = run.squared_norms(rows)
        net.eval()
        for n in range(len(x)):
            grads = torch.autograd.grad(net(x[n : n + 1]), list(net.parameters()), rows[n : n + 1])
            torch.testing.assert_close(found[n], torch.stack([g.square().sum() for g in grads]), rtol=1e-9, atol=1e-12)
