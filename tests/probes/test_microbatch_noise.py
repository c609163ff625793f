import numpy as np
import pytest
import torch
from torch import nn

from decaylab.probes import ProbeRunner


def _net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 9, bias=False), nn.Linear(9, 4, bias=False))
    return net.double()


def _expected(rows, factor=1.0):
    """Moments of the k gradients h_i, float64 vectors, times a common factor (clipping, unscaling)."""
    rows = rows * factor
    k, mean = len(rows), rows.mean(axis=0)
    variance = rows.var(axis=0, ddof=1).sum()
    signal = mean @ mean - variance / k
    return {
        "noise/microbatch/variance": variance,
        "noise/microbatch/signal": signal,
        "noise/microbatch/scale": variance / signal if signal > 0 else np.nan,
        "noise/microbatch/snr": mean @ mean / (variance / k),
    }


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("treatment", ["plain", "clipped", "scaled"])
def test_variance_of_microbatches_against_their_gradients(set_to_none, treatment):
    net, k = _net(), 4
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    runner = ProbeRunner(["microbatch_noise"], net, optimizer, every=2)
    scale = 1024.0 if treatment == "scaled" else 1.0
    for step in range(5):
        rows = []
        for _ in range(k):
            loss = net(torch.randint(0, 9, (3, 2))).square().mean()
            rows.append(
                torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, net.parameters(), retain_graph=True)])
            )
            (loss * scale / k).backward()
        for p in net.parameters():
            p.grad.div_(scale)
        factor = 1.0
        if treatment == "clipped":
            factor = 1e-3 / float(torch.nn.utils.clip_grad_norm_(net.parameters(), 1e-3))
        runner.before_step(step)
        optimizer.step()
        found = runner.after_step(step)
        optimizer.zero_grad(set_to_none=set_to_none)
        assert (found is not None) == (step % 2 == 0)
        if found:
            expected = _expected(torch.stack(rows).numpy(), factor)
            assert found == pytest.approx(expected, rel=1e-4, nan_ok=True)  # clipping adds 1e-6 to the norm


def test_one_microbatch_says_nothing_and_hooks_are_there_only_when_needed():
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    runner = ProbeRunner(["microbatch_noise"], net, optimizer, every=3)
    for step in range(7):
        assert bool(net[2].weight._backward_hooks) == (step % 3 == 0)
        net(torch.randint(0, 9, (3, 2))).sum().backward()
        runner.before_step(step)
        optimizer.step()
        assert runner.after_step(step) == ({} if step % 3 == 0 else None)
        optimizer.zero_grad()


def test_a_step_that_was_called_off_leaves_no_trace():
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    runner = ProbeRunner(["microbatch_noise"], net, optimizer, every=1)
    for called_off in (True, False):
        rows = []
        for _ in range(2):
            loss = net(torch.randint(0, 9, (3, 2))).square().mean()
            rows.append(
                torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, net.parameters(), retain_graph=True)])
            )
            (loss / 2).backward()
        runner.before_step(0)
        if not called_off:
            optimizer.step()
        found = runner.after_step(0)
        optimizer.zero_grad()
    assert found == pytest.approx(_expected(torch.stack(rows).numpy()), rel=1e-9, nan_ok=True)
