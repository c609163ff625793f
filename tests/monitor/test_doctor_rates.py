"""Learning rates of finished trainings, against the schedulers that made them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from decaylab.monitor.doctor_files import Checkpoint
from decaylab.monitor.doctor_groups import groups_of
from decaylab.monitor.doctor_rates import nearest_schedule, rates

S = torch.optim.lr_scheduler


def _run(make, steps, per_tick=1):
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = make(optimizer)
    used = []
    for step in range(steps):
        used.append(optimizer.param_groups[0]["lr"])
        if (step + 1) % per_tick == 0:
            optimizer.step()
            scheduler.step()
    groups = groups_of([optimizer.state_dict()], Path("here"), optimizer=None)
    return used, scheduler.state_dict(), groups


def _checkpoint(step, **fields):
    return Checkpoint(path=Path("here"), kind=fields.pop("kind", "torch"), step=step, weights={}, **fields)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: S.CosineAnnealingLR(o, T_max=14, eta_min=0.01),
        lambda o: S.StepLR(o, step_size=3, gamma=0.5),
        lambda o: S.MultiStepLR(o, milestones=[2, 7], gamma=0.1),
        lambda o: S.ExponentialLR(o, gamma=0.9),
        lambda o: S.LinearLR(o, start_factor=0.1, total_iters=5),
        lambda o: S.PolynomialLR(o, total_iters=20, power=2.0),
        lambda o: S.SequentialLR(
            o, [S.LinearLR(o, start_factor=0.1, total_iters=4), S.CosineAnnealingLR(o, T_max=10)], milestones=[4]
        ),
    ],
)
@pytest.mark.parametrize("per_tick", [1, 4])
def test_torchs_schedulers_are_stepped_again(make, per_tick):
    used, state, groups = _run(make, 12, per_tick)
    lrs, source, assumed = rates([(_checkpoint(12, schedulers=[state]), groups)], 12)
    assert lrs[0] == pytest.approx(used) and "scheduler" in source and not assumed


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant_with_warmup"])
@pytest.mark.parametrize("warmup, every", [(0, 10), (7, 10), (30, 10)])
def test_logged_rates_give_the_whole_schedule_of_transformers(kind, warmup, every):
    transformers = pytest.importorskip("transformers")
    used, _, groups = _run(lambda o: transformers.get_scheduler(kind, o, warmup, 100), 80)
    logged = [(step, used[step - 1]) for step in range(every, 81, every)]
    found = _checkpoint(80, kind="transformers", logged=logged, total_steps=100)
    lrs, source, assumed = rates([(found, groups)], 80)
    assert "logged" in source and assumed == (kind == "constant_with_warmup" and warmup < every)
    if kind == "constant_with_warmup" and 0 < warmup < every:
        assert "do not show a warm-up before step 10" in source
        return
    assert lrs[0] == pytest.approx(used, abs=1e-4)
    assert math.fsum(lrs[0]) == pytest.approx(math.fsum(used), rel=1e-3)


def test_without_a_source_the_rate_is_taken_as_constant_and_several_are_joined():
    used, _, groups = _run(lambda o: S.ConstantLR(o, factor=1.0), 4)
    lrs, source, assumed = rates([(_checkpoint(4), groups)], 4)
    assert lrs[0] == pytest.approx(used) and assumed and "constant" in source
    other = _run(lambda o: S.LambdaLR(o, lambda step: 0.5), 4)[2]
    lrs, source, assumed = rates([(_checkpoint(4), groups), (_checkpoint(8), other)], 8)
    assert lrs[0][[0, 4, 6]] == pytest.approx([0.1, 0.1, 0.075]) and assumed and "lines between" in source


def test_the_nearest_schedule_is_that_of_explain():
    t = np.arange(200)
    linear, peak = nearest_schedule(np.minimum(t / 20, (200 - t) / 180) * 0.1)
    assert (linear.kind, linear.warmup_steps, peak) == ("linear", 20, pytest.approx(0.1))
    saw = np.where(t % 20 < 10, 0.1, 0.02)
    constant, mean = nearest_schedule(saw)
    assert constant.kind == "constant" and mean == pytest.approx(0.06)
