"""The norm of the Jacobian against the Jacobian."""

import pytest
import torch
from tests.support.exact_curvature import conv_net, exact, gpt, mlp, token_loss
from torch.nn import functional as F

from decaylab.curvature.gauss_newton import gauss_newton_trace
from decaylab.curvature.jacobian import jacobian_frobenius
from decaylab.errors import DecaylabError


@pytest.mark.parametrize("build", [conv_net, mlp])
def test_class_by_class_is_exact(build):
    net, x, y = build()
    truth = exact(net, F.cross_entropy, x, y)
    found = jacobian_frobenius(net.double(), [(x.double(), y)], method="exact", chunk_size=3)
    assert found.stderr == 0
    assert found.value == pytest.approx(float(truth.jacobian.norm()) / len(x) ** 0.5, rel=1e-11)
    blocks = truth.jacobian.split(truth.sizes, dim=1)
    for name, block in zip(truth.names, blocks, strict=True):
        assert found.per_tensor[name].value == pytest.approx(float(block.norm()) / len(x) ** 0.5)


@pytest.mark.parametrize(("build", "loss"), [(conv_net, F.cross_entropy), (gpt, token_loss)])
def test_random_projections(build, loss):
    net, x, y = build()
    truth = exact(net, loss, x, y)
    norm = float(truth.jacobian.norm()) / len(x) ** 0.5
    for method in ("auto", "projections"):
        found = jacobian_frobenius(net, [(x, y)], 0.03, method=method, chunk_size=4)
        assert found.converged and found.rel_stderr <= 0.03
        assert abs(found.value - norm) < 4 * found.stderr + 1e-5


def test_squared_loss_curves_by_the_jacobian():
    net, x, _ = mlp()
    y = torch.randn(len(x), 3)
    trace = gauss_newton_trace(net, F.mse_loss, [(x, y)], 0).value
    assert jacobian_frobenius(net, [x], 0).value ** 2 * 2 / 3 == pytest.approx(trace, rel=1e-5)


def test_all_rows_of_many_positions_are_refused():
    net, x, y = gpt()
    with pytest.raises(DecaylabError, match="several positions"):
        jacobian_frobenius(net, [(x, y)], method="exact")
