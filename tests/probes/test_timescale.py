import math

import pytest
import torch
from torch import nn

from decaylab.probes import ProbeRunner


def test_passed_is_the_sum_over_a_schedule_of_all_steps_not_only_the_recorded_ones():
    net = nn.Linear(4, 3, bias=False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    runner = ProbeRunner(["timescale"], net, optimizer, every=7)
    for step in range(15):
        net.weight.grad = torch.zeros(3, 4)
        runner.before_step(step)
        optimizer.step()
        found = runner.after_step(step)
        schedule.step()
        assert (found is not None) == (step % 7 == 0)
    assert found["timescale/passed"] == pytest.approx(sum(0.05 / (1 + s) for s in range(15)), rel=1e-12)
    assert found["timescale/steps"] == pytest.approx(15 / 0.05, rel=1e-12)
    resumed = ProbeRunner(["timescale"], net, optimizer, every=1)
    resumed.load_state_dict(runner.state_dict())
    resumed.before_step(15)
    optimizer.step()
    assert resumed.after_step(15)["timescale/passed"] == pytest.approx(
        sum(0.05 / (1 + s) for s in range(16)), rel=1e-12
    )


@pytest.mark.parametrize(("momentum", "dampening"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.5)])
def test_initial_weights_are_left_with_the_share_that_the_timescale_says(momentum, dampening):
    # Zero loss gradient: what is left of the start is exp(-passed), also through a momentum buffer.
    net = nn.Linear(4, 3, bias=False).double()
    start = float(net.weight.detach().norm())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, weight_decay=0.02, momentum=momentum, dampening=dampening)
    runner = ProbeRunner(["timescale", "norms"], net, optimizer, every=2000)
    for step in range(2001):
        net.weight.grad = torch.zeros(3, 4, dtype=torch.float64)
        runner.before_step(step)
        optimizer.step()
        found = runner.after_step(step)
    assert -math.log(found["weights/norm"] / start) == pytest.approx(found["timescale/passed"], rel=0.02)


def test_only_parameters_that_decay_count():
    net = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    groups = [
        {"params": [net[0].weight], "weight_decay": 0.1},
        {"params": [net[2].weight], "weight_decay": 0.4},
        {"params": [net[0].bias, net[2].bias, *net[1].parameters()], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    runner = ProbeRunner(["timescale"], net, optimizer, every=1)
    net(torch.randn(2, 4)).sum().backward()
    runner.before_step(0)
    optimizer.step()
    found = runner.after_step(0)
    roles = {"", "/matrix", "/head"}
    assert set(found) == {f"timescale/{what}{role}" for what in ("steps", "passed") for role in roles}
    assert found["timescale/steps/matrix"] == pytest.approx(1000)
    assert found["timescale/steps/head"] == pytest.approx(250)
    assert found["timescale/steps"] == pytest.approx(18 / (12 * 0.001 + 6 * 0.004))


def test_learning_rates_that_are_tensors_are_read_without_conversion():
    net = nn.Linear(4, 3, bias=False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=torch.tensor(0.1), weight_decay=0.5)
    runner = ProbeRunner(["timescale", "effective_lr"], net, optimizer, every=1)
    for step in range(3):
        net.weight.grad = torch.ones(3, 4)
        optimizer.param_groups[0]["lr"].fill_(0.1 / (step + 1))
        runner.before_step(step)
        optimizer.step()
        found = runner.after_step(step)
    assert found["timescale/passed"] == pytest.approx(0.05 * (1 + 1 / 2 + 1 / 3), rel=1e-6)
    assert found["timescale/steps"] == pytest.approx(60, rel=1e-6)


def _step(optimizer, runner, step, gradients):
    optimizer.zero_grad()
    for p in gradients:
        p.grad = torch.ones_like(p)
    runner.before_step(step)
    optimizer.step()
    return runner.after_step(step)


def test_a_parameter_without_gradients_passes_no_time():
    net = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.5)
    runner = ProbeRunner(["timescale", "rotation", "decay_share", "norms"], net, optimizer, every=5)
    found = [_step(optimizer, runner, step, []) for step in range(11)][-1]
    assert found["update/norm"] == 0
    assert not [key for key in found if key.startswith("timescale") or "predicted" in key or "share" in key]
    found = [_step(optimizer, runner, step, [net[1].weight]) for step in range(11, 21)][-1]
    assert found["timescale/passed"] == found["timescale/passed/head"] == pytest.approx(10 * 0.005)
    assert found["timescale/steps"] == pytest.approx(200)
    assert "timescale/passed/matrix" not in found and "update/angular_predicted/matrix" not in found


@pytest.mark.parametrize("tensor", [False, True])
def test_a_layer_with_a_gradient_in_every_tenth_step_passes_a_tenth_of_the_time(tensor):
    net = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)).double()
    lr = torch.tensor(0.01, dtype=torch.float64) if tensor else 0.01
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.2)
    runner = ProbeRunner(["timescale", "rotation", "decay_share"], net, optimizer, every=5)
    found = {}
    for step in range(101):
        moved = list(net.parameters()) if step % 10 == 0 else [net[1].weight]
        record = _step(optimizer, runner, step, moved)
        found = record or found
        if step == 95:
            assert found["timescale/passed/matrix"] == pytest.approx(10 * 0.002)
            assert "update/decay_share/matrix" not in found and "update/angular_predicted/matrix" not in found
        if step == 52:  # also across an interruption in the middle
            resumed = ProbeRunner(["timescale", "rotation", "decay_share"], net, optimizer, every=5)
            resumed.load_state_dict(runner.state_dict())
            runner.close()
            runner = resumed
    assert found["timescale/passed/head"] == pytest.approx(101 * 0.002)
    assert found["timescale/passed/matrix"] == pytest.approx(11 * 0.002)
    assert found["timescale/passed"] == pytest.approx(56 * 0.002)
    assert "update/decay_share/matrix" in found and "update/angular_predicted/matrix" in found


def test_gradients_that_somebody_clears_after_the_step_and_those_of_a_closure_count():
    net = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    clearing = optimizer.register_step_post_hook(lambda *_: optimizer.zero_grad())
    runner = ProbeRunner(["timescale"], net, optimizer, every=1)
    assert _step(optimizer, runner, 0, net.parameters())["timescale/passed"] == pytest.approx(0.01)
    clearing.remove()
    runner.before_step(1)
    optimizer.step(lambda: net(torch.ones(2, 4)).sum().backward())
    assert runner.after_step(1)["timescale/passed"] == pytest.approx(0.02)
