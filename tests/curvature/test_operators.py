"""Products with the Hessian, its parts and the noise covariance against the matrices themselves."""

import pytest
import torch
from tests.support.exact_curvature import conv_net, exact, gpt, mlp, tied, token_loss
from torch import nn
from torch.nn import functional as F

from decaylab.curvature.model_copy import plain_kernels
from decaylab.curvature.operators import MATRICES, Operator, gauss_newton_vector_product, hessian_vector_product
from decaylab.curvature.prepare import objective
from decaylab.errors import DecaylabError

CASES = {
    "relu": (conv_net, F.cross_entropy),
    "tanh": (mlp, F.cross_entropy),
    "squared": (lambda: (*mlp()[:2], torch.randn(9, 3, dtype=torch.float64)), F.mse_loss),
    "tied": (tied, F.cross_entropy),
    "gpt": (lambda: gpt(tied=True), token_loss),
}


@pytest.mark.parametrize("case", CASES)
def test_products_equal_the_matrices(case):
    build, loss = CASES[case]
    net, x, y = build()
    net = net.double()
    x = x.double() if x.is_floating_point() else x
    truth = exact(net, loss, x, y)
    for chunk_size in (None, 3):
        made = objective(net, lambda model, batch: loss(model(batch[0]), batch[1]), [(x, y)], chunk_size=chunk_size)
        v = torch.randn(made.num_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        with plain_kernels(made.device):
            for matrix in MATRICES:
                operator = Operator(made, matrix)
                for _ in range(2):  # the second product reuses the graph
                    torch.testing.assert_close(operator(v), getattr(truth, matrix) @ v, rtol=1e-9, atol=1e-11)
                assert operator.num_products == 2


def test_named_products():
    net, x, y = mlp()
    net, x = net.double(), x.double()
    truth = exact(net, F.cross_entropy, x, y)
    start = sum(truth.sizes[: truth.names.index("2.bias")])
    unit = {"2.bias": torch.tensor([0.0, 1, 0, 0, 0])}  # names that are missing are zero
    for product, matrix in (
        (hessian_vector_product, truth.hessian),
        (gauss_newton_vector_product, truth.gauss_newton),
    ):
        found = product(net, nn.CrossEntropyLoss(), [(x, y)], unit)
        assert list(found) == truth.names
        torch.testing.assert_close(torch.cat([t.flatten() for t in found.values()]), matrix[:, start + 1])


def test_batches_weigh_by_their_points():
    net, x, y = mlp()
    v = {name: torch.ones_like(p) for name, p in net.named_parameters()}
    whole = hessian_vector_product(net, F.cross_entropy, [(x, y)], v)
    split = hessian_vector_product(net, F.cross_entropy, [(x[:2], y[:2]), (x[2:], y[2:])], v, chunk_size=4)
    for name in whole:
        torch.testing.assert_close(split[name], whole[name])


def test_wrong_vectors_are_named():
    net, x, y = mlp()
    with pytest.raises(DecaylabError, match=r"unknown trainable parameter '0.weigth'; did you mean"):
        hessian_vector_product(net, F.cross_entropy, [(x, y)], {"0.weigth": torch.zeros(6, 4)})
    with pytest.raises(DecaylabError, match="has shape"):
        hessian_vector_product(net, F.cross_entropy, [(x, y)], {"0.weight": torch.zeros(4, 6)})
