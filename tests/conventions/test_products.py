"""Total shrinkage against torch's optimizers run step by step, and against exp of the sum."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decaylab.conventions import CONVENTIONS, Setting, peak_decay, same_total_decay, shrinkage
from decaylab.conventions.products import factor_per_step
from decaylab.errors import DecaylabError
from decaylab.schedules import Schedule, values

STEPS, PEAK = 201, 0.05
SCHEDULE = Schedule(kind="cosine", warmup_steps=9)


def _torch_final(optimizer_class, **options):
    """Run torch's optimizer on zero gradients through the schedule; return what is left of the weight."""
    p = torch.nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    optimizer = optimizer_class([p], lr=PEAK, **options)
    for lr in values(SCHEDULE, range(STEPS), PEAK, STEPS):
        optimizer.param_groups[0]["lr"] = float(lr)
        p.grad = torch.zeros_like(p)
        optimizer.step()
    return p.item() / 3.0


def _ours(key, weight_decay, momentum=0.0, dampening=0.0):
    setting = Setting(lr=PEAK, total_steps=STEPS, momentum=momentum, dampening=dampening)
    multipliers = values(SCHEDULE, range(STEPS), PEAK, STEPS) / PEAK
    return shrinkage(peak_decay(weight_decay, key, setting), multipliers, CONVENTIONS[key], setting)


def test_adamw():
    assert _ours("torch", 0.4) == pytest.approx(_torch_final(torch.optim.AdamW, weight_decay=0.4), rel=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("dampening", [0.0, 0.9])
def test_sgd_with_momentum(momentum, dampening):
    ours = _ours("l2", 0.02, momentum, dampening)
    torchs = _torch_final(torch.optim.SGD, weight_decay=0.02, momentum=momentum, dampening=dampening)
    assert ours == pytest.approx(torchs, rel=1e-11)


@given(decay=st.floats(1e-8, 0.3), power=st.sampled_from([0, 1, 2]), steps=st.integers(1, 400))
def test_product_lies_below_the_exponential(decay, power, steps):
    """1 - d <= exp(-d), and log(1 - d) >= -d - d^2 for d <= 0.5."""
    multipliers = values(Schedule(kind="linear"), range(steps), 1.0, steps)
    key = {0: "constant", 1: "torch", 2: "adamc"}[power]
    left = shrinkage(decay, multipliers, CONVENTIONS[key], Setting(lr=1.0))
    total, squares = (decay * multipliers**power).sum(), ((decay * multipliers**power) ** 2).sum()
    assert math.exp(-total - squares) * (1 - 1e-12) <= left <= math.exp(-total) * (1 + 1e-12)


@given(
    decay=st.floats(1e-9, 0.5),
    power=st.sampled_from([0, 1, 2]),
    other=st.sampled_from([0, 1, 2]),
    steps=st.integers(1, 300),
)
def test_same_total_decay(decay, power, other, steps):
    multipliers = values(Schedule(kind="cosine", warmup_steps=min(3, steps - 1)), range(steps), 1.0, steps)
    left = float(np.prod(1 - decay * multipliers**power))
    found = same_total_decay(left, multipliers, other)
    if other == power:
        assert found == pytest.approx(decay, rel=1e-6)
    assert float(np.prod(1 - found * multipliers**other)) == pytest.approx(left, rel=1e-9)


def test_same_total_decay_of_a_constant_has_a_closed_form():
    found = same_total_decay(0.3, np.ones(50), 0)
    assert found == pytest.approx(1 - 0.3 ** (1 / 50), rel=1e-14)
    assert same_total_decay(-0.1, np.ones(50), 0) is None
    assert same_total_decay(1.0, np.ones(50), 0) == 0.0


def test_factor_per_step_is_what_torch_settles_on():
    setting = Setting(lr=0.1, momentum=0.9)
    p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=5e-3)
    path = []
    for _ in range(400):
        p.grad = torch.zeros_like(p)
        optimizer.step()
        path.append(p.item())
    factor = factor_per_step(peak_decay(5e-3, "l2", setting), 1.0, CONVENTIONS["l2"], setting)
    assert factor == pytest.approx(path[-1] / path[-2], rel=1e-12)
    assert factor == pytest.approx(1 - 0.1 * 5e-3 / 0.1, rel=1e-3)


@pytest.mark.parametrize("key", [key for key, one in CONVENTIONS.items() if one.through_momentum])
@pytest.mark.parametrize(("dampening", "multiplier"), [(0.0, 1.0), (0.5, 1.0), (0.0, 0.5)])
def test_a_decay_that_swings_is_refused_with_the_limit(key, dampening, multiplier):
    setting = Setting(lr=0.1, momentum=0.9, dampening=dampening)

    def factor(weight_decay):
        return factor_per_step(peak_decay(weight_decay, key, setting), multiplier, CONVENTIONS[key], setting)

    with pytest.raises(DecaylabError, match="swing around 0") as error:
        factor(0.5)
    limit = float(str(error.value).rpartition(" ")[2])
    assert factor(0.99 * limit) > 0
    with pytest.raises(DecaylabError, match="swing around 0"):
        factor(1.01 * limit)
