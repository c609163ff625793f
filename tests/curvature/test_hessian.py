"""Traces of the Hessian and of its Gauss-Newton part against the matrices, and standard errors against reality."""

import pytest
import torch
from tests.support.exact_curvature import conv_net, exact, gpt, mlp, tied, token_loss
from torch import nn
from torch.nn import functional as F

from decaylab.curvature.gauss_newton import gauss_newton_trace
from decaylab.curvature.hessian import hessian_trace
from decaylab.curvature.hutchinson import hutchinson
from decaylab.curvature.importance_sampling import OutputRows
from decaylab.curvature.model_copy import plain_kernels
from decaylab.curvature.per_sample_norms import GhostNorms
from decaylab.curvature.prepare import objective
from decaylab.curvature.residual import SmoothUnits
from decaylab.errors import DecaylabError
from decaylab.models import preact_resnet


def _on_outputs(loss):
    return lambda model, batch: loss(model(batch[0]), batch[1])


def _binary():
    net, x, _ = mlp(nn.ReLU, num_outputs=1)
    return net, x, torch.randint(2, (9, 1)).double()


def _squared(activation=nn.LeakyReLU):
    net, x, _ = mlp(activation)
    return net, x, torch.randn(9, 3).double()


EXACT = {
    "conv net": (conv_net, F.cross_entropy),
    "relu": (lambda: mlp(nn.ReLU), F.cross_entropy),
    "logistic": (_binary, F.binary_cross_entropy_with_logits),
    "squared": (_squared, F.mse_loss),
    # curves downwards in its outputs, too
    "cosine": (_squared, lambda z, y: z.cos().mean() + (z * y).mean()),
    "smoothed": (lambda: mlp(nn.ReLU), lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1)),
}


@pytest.mark.parametrize("case", EXACT)
def test_piecewise_linear_networks_are_exact(case):
    build, loss = EXACT[case]
    net, x, y = build()
    net, x = net.double(), x.double()
    truth = exact(net, loss, x, y)
    for chunk_size in (None, 3):
        found = hessian_trace(net, _on_outputs(loss), [(x, y)], 0, chunk_size=chunk_size)
        assert (found.method, found.stderr, found.converged) == ("exact rows", 0, True)
        assert found.value == pytest.approx(float(truth.hessian.trace()), rel=1e-11)
        assert {k: part.value for k, part in found.per_tensor.items()} == pytest.approx(truth.traces(truth.hessian))
        assert sum(part.value for part in found.per_role.values()) == pytest.approx(found.value)


ESTIMATED = {
    "gelu": (lambda: conv_net(F.gelu), F.cross_entropy, "exact rows + sampled residual"),
    "tanh": (mlp, F.cross_entropy, "exact rows + sampled residual"),
    "silu squared": (
        lambda: (*mlp(nn.SiLU)[:2], torch.randn(9, 3).double()),
        F.mse_loss,
        "exact rows + sampled residual",
    ),
    "tied": (tied, F.cross_entropy, "hutchinson"),
    "attention": (gpt, token_loss, "hutchinson"),
}


@pytest.mark.parametrize("case", ESTIMATED)
def test_other_networks_are_estimated(case):
    build, loss, method = ESTIMATED[case]
    net, x, y = build()
    truth = exact(net, loss, x, y)
    net = net.double()
    x = x.double() if x.is_floating_point() else x
    aim = 0.2 if case == "attention" else 0.05
    found = hessian_trace(net, _on_outputs(loss), [(x, y)], aim, chunk_size=4)
    assert found.method == method
    assert found.converged and found.rel_stderr <= aim
    assert abs(found.value - float(truth.hessian.trace())) < 4 * found.stderr
    for name, value in truth.traces(truth.hessian).items():
        part = found.per_tensor[name]
        assert abs(part.value - value) < 5 * part.stderr + 1e-9, name


@pytest.mark.parametrize("case", ["gelu", "tied", "attention"])
def test_gauss_newton_traces(case):
    build, loss, _ = ESTIMATED[case]
    net, x, y = build()
    truth = exact(net, loss, x, y)
    net = net.double()
    x = x.double() if x.is_floating_point() else x
    value = float(truth.gauss_newton.trace())
    if case != "attention":
        assert gauss_newton_trace(net, _on_outputs(loss), [(x, y)], 0).value == pytest.approx(value, rel=1e-11)
    for method in ("sampled", "hutchinson"):
        found = gauss_newton_trace(net, _on_outputs(loss), [(x, y)], 0.1, method=method, chunk_size=4)
        assert found.converged and 0 < found.rel_stderr <= 0.1
        assert abs(found.value - value) < 4 * found.stderr


def _rows(made, seed):
    return OutputRows(GhostNorms(made), "softmax", seed)


def _projections(made, seed):
    return OutputRows(GhostNorms(made), "softmax", seed, random=True)


def _units(made, seed):
    return SmoothUnits(GhostNorms(made), seed)


COVERAGE = {
    "sampled rows": (conv_net, "gauss_newton", _rows),
    "projected rows": (mlp, "gauss_newton", _projections),
    "sampled residual": (mlp, "residual", _units),
}


@pytest.mark.parametrize("case", COVERAGE)
def test_standard_errors_of_sampled_sums_are_honest(case):
    build, matrix, source = COVERAGE[case]
    net, x, y = build()
    truth = float(getattr(exact(net, F.cross_entropy, x, y), matrix).trace())
    made = objective(net, F.cross_entropy, [(x, y)], chunk_size=1000)
    with plain_kernels(made.device):
        totals = source(made, 1).draw(200 * 20).sum(1).view(200, 20)
    _check_coverage(totals, truth)


def _check_coverage(totals, truth):
    """200 estimates, each the mean of a row: the 95 % interval holds the truth in 90 to 99 % of them."""
    error = totals.std(1) / totals.shape[1] ** 0.5
    covered = ((totals.mean(1) - truth).abs() <= 1.96 * error).double().mean()
    assert 0.90 <= covered <= 0.99
    # and all of them together find no bias
    assert abs(totals.mean() - truth) < 4 * totals.std() / totals.numel() ** 0.5


def test_standard_errors_of_hutchinson_are_honest():
    net, x, y = mlp(num_points=4)
    truth = float(exact(net, F.cross_entropy, x, y).hessian.trace())
    made = objective(net, F.cross_entropy, [(x, y)], chunk_size=4)
    with plain_kernels(made.device):
        (samples,) = hutchinson(made, "hessian", 0.0, 200 * 16, 1).repetitions
    _check_coverage(samples.sum(1).view(200, 16), truth)


def test_estimates_that_stop_by_themselves_are_honest():
    net, x, y = mlp(num_points=4)
    truth = float(exact(net, F.cross_entropy, x, y).hessian.trace())
    found = [hessian_trace(net, F.cross_entropy, [(x, y)], 0.12, seed=seed, roles={}) for seed in range(200)]
    assert all(f.converged for f in found)
    assert 0.90 <= sum(abs(f.value - truth) <= 1.96 * f.stderr for f in found) / 200 <= 0.99


def test_scale_invariant_network_trace_scales_as_one_over_c_squared():
    torch.manual_seed(0)
    net = preact_resnet("small", num_classes=4, in_channels=1, width=4, blocks=1, scale_invariant=True).double()
    x, y = torch.randn(12, 1, 8, 8, dtype=torch.float64), torch.randint(4, (12,))
    traces, roles = [], []
    for factor in (1.0, 2.0, 3.0):
        with torch.no_grad():
            for p in net.parameters():
                if p.requires_grad:
                    p.mul_(factor)
        _calibrate(net, x)
        found = hessian_trace(net, F.cross_entropy, [(x, y)], 0)
        traces.append(found.value)
        roles.append(found.per_role)
        assert "head.weight" not in found.per_tensor  # it is fixed
    assert traces[0] / traces[1] == pytest.approx(4, rel=1e-6)
    assert traces[1] / traces[2] == pytest.approx(9, rel=1e-6)
    assert set(roles[0]) == {"matrix"}


def _calibrate(net, x):
    """Give BatchNorm the statistics of x at these weights: evaluation mode is scale-invariant only with them."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    net(x)
    net.eval()


def test_the_asked_accuracy_decides_the_effort():
    net, x, y = conv_net()
    x, y = torch.randn(300, 1, 5, 5), torch.randint(4, (300,))
    rough = hessian_trace(net, F.cross_entropy, [(x, y)], 0.02)
    fine = hessian_trace(net, F.cross_entropy, [(x, y)], 0.006)
    exact_value = hessian_trace(net, F.cross_entropy, [(x, y)], 0)
    assert rough.method == fine.method == "sampled rows"
    assert rough.num_rows < fine.num_rows < exact_value.num_rows == 900
    assert abs(rough.value - exact_value.value) < 4 * rough.stderr
    capped = hessian_trace(net, F.cross_entropy, [(x, y)], 1e-3, method="hutchinson", max_matvecs=7)
    assert not capped.converged and capped.num_matvecs == 7


def test_seeds_and_records():
    net, x, y = mlp()
    first, second, other = (hessian_trace(net, F.cross_entropy, [(x, y)], 0.1, seed=seed) for seed in (3, 3, 4))
    assert first.value == second.value != other.value
    records = first.records("hessian/trace")
    assert set(records) == {"hessian/trace", "hessian/trace/stderr", *(f"hessian/trace/{r}" for r in first.per_role)}


def test_a_loss_method_of_the_model_can_be_split():
    net, x, y = gpt()
    own = gauss_newton_trace(net, lambda model, batch: model.loss(*batch), [(x, y)], 0.2, seed=1)
    assert own.method == "sampled rows"
    assert own.value == pytest.approx(gauss_newton_trace(net, _on_outputs(token_loss), [(x, y)], 0.2, seed=1).value)


def test_penalties_in_the_loss_are_part_of_the_hessian():
    net, x, y = mlp(nn.ReLU)

    def penalised(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1]) + 3 * sum(p.square().sum() for p in model.parameters())

    bare = hessian_trace(net, F.cross_entropy, [(x, y)], 0).value
    found = hessian_trace(net, penalised, [(x, y)], 0.01)
    assert found.method == "hutchinson"
    assert abs(found.value - bare - 6 * sum(p.numel() for p in net.parameters())) < 4 * found.stderr + 1e-3


MISTAKES = {
    "name": ({"method": "magic"}, lambda: mlp(), "unknown method 'magic'"),
    "smooth": ({"method": "exact"}, lambda: mlp(), "smooth activations"),
    "tied": ({"method": "split"}, tied, "both depend on matrix"),
    "too few": ({"method": "hutchinson", "max_matvecs": 1}, lambda: mlp(), "at least 2"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_methods_that_do_not_apply_say_why(mistake):
    options, build, message = MISTAKES[mistake]
    net, x, y = build()
    with pytest.raises(DecaylabError, match=message):
        hessian_trace(net, F.cross_entropy, [(x, y)], **options)
    net, x, y = gpt()
    with pytest.raises(DecaylabError, match="positions"):
        gauss_newton_trace(net, _on_outputs(token_loss), [(x, y)], method="exact")
