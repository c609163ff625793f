import math

import pytest
import torch
from torch import nn

from decaylab import watch
from decaylab.probes import PROBES, ProbeRunner, measure


def _net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(7, 5), nn.Flatten(), nn.Linear(10, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3)
    )


def _expected(tensors, order=2):
    return float(torch.cat([t.double().reshape(-1) for t in tensors]).norm(order))


def test_all_norms_against_concatenated_float64_vectors():
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.01, momentum=0.9)
    runner = ProbeRunner(["norms"], net, optimizer, every=1)
    roles = {"embedding": ["0.weight"], "matrix": ["2.weight"], "norm": ["3.weight", "3.bias"], "head": ["5.weight"],
             "bias": ["2.bias", "5.bias"]}  # fmt: skip
    for step in range(3):
        optimizer.zero_grad()
        net(torch.randint(0, 7, (4, 2))).square().mean().backward()
        old = {k: p.detach().clone() for k, p in net.named_parameters()}
        runner.before_step(step)
        optimizer.step()
        found = runner.after_step(step)
        new = dict(net.named_parameters())
        kinds = {
            "weights": {k: p.detach() for k, p in new.items()},
            "gradients": {k: p.grad for k, p in new.items()},
            "update": {k: p.detach() - old[k] for k, p in new.items()},
        }
        for what, tensors in kinds.items():
            assert found.pop(f"{what}/norm") == pytest.approx(_expected(tensors.values()), rel=1e-6)
            assert found.pop(f"{what}/max") == pytest.approx(_expected(tensors.values(), math.inf), rel=1e-6)
            for role, names in roles.items():
                assert found.pop(f"{what}/norm/{role}") == pytest.approx(
                    _expected([tensors[n] for n in names]), rel=1e-6
                )
        assert not found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_half_precision_is_summed_in_float32(dtype):
    layer = nn.Linear(1000, 300, bias=False).to(dtype)  # 300,000 squares overflow and round in half precision
    layer.weight.data.fill_(1.0)
    assert measure("norms", layer)["weights/norm"] == pytest.approx(math.sqrt(300_000), rel=1e-5)


def test_parameters_without_gradient_count_as_zero():
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    runner = ProbeRunner(["norms"], net, optimizer, every=1)
    net[5].weight.grad = torch.ones(3, 6)
    runner.before_step(0)
    optimizer.step()
    found = runner.after_step(0)
    assert found["gradients/norm"] == pytest.approx(math.sqrt(18))
    assert found["gradients/norm/embedding"] == found["update/norm/embedding"] == 0
    assert found["update/norm/head"] == pytest.approx(0.1 * math.sqrt(18), rel=1e-6)


def test_frozen_parameters_are_left_out_and_tied_ones_count_once():
    net = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    net[1].weight = net[0].weight
    assert measure("norms", net)["weights/norm"] == pytest.approx(float(net[0].weight.detach().norm()), rel=1e-6)
    other = _net()
    other[0].weight.requires_grad_(False)
    assert "weights/norm/embedding" not in measure("norms", other)


@pytest.mark.parametrize("kind", ["SGD", "SparseAdam"])
def test_sparse_gradients_have_the_norms_of_dense_ones(kind):
    names = [name for name, row in PROBES.items() if "loss" not in row.needs]
    found = {}
    for sparse in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Embedding(7, 5, sparse=sparse))
        plain = torch.optim.Adam if kind == "SparseAdam" and not sparse else getattr(torch.optim, kind)
        optimizer = plain(net.parameters(), lr=0.1)
        with watch(net, optimizer, every=1, probes=names) as log:
            for step in range(2):
                optimizer.zero_grad()
                for rows in ([1, 1, 3], [3, 5, 5, 5]) if step else ([0, 1], []):
                    weights = torch.arange(1.0, len(rows) + 1)[:, None]
                    (net(torch.tensor(rows, dtype=torch.long)) * weights).square().sum().backward()
                optimizer.step()
        found[sparse] = log.records
    for dense, sparse in zip(found[False], found[True], strict=True):
        # Adam goes on moving rows without a gradient, which SparseAdam leaves alone
        keys = [key for key in dense if kind == "SGD" or key.startswith(("gradients", "noise"))]
        assert {key: sparse[key] for key in keys} == pytest.approx(
            {key: dense[key] for key in keys}, rel=1e-5, nan_ok=True
        )
