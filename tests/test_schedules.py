"""Schedules against the paper's own formula (written out here once more), closed-form sums and torch's schedulers."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decaylab.errors import DecaylabError
from decaylab.schedules import DecaySchedule, Schedule, decay_multiplier, integral, value, values

KINDS = [
    Schedule(),
    Schedule(warmup_steps=7),
    Schedule(kind="cosine"),
    Schedule(kind="cosine", warmup_steps=11, decay_steps=130, final_lr=1e-5),
    Schedule(kind="cosine", warmup_steps=5, decay_steps=60, final_ratio=0.0),
    Schedule(kind="linear", warmup_steps=10),
    Schedule(kind="linear", decay_steps=50, final_ratio=0.2),
    Schedule(kind="two_phase", drop_at=(0.5,), final_lr=1e-4),
    Schedule(kind="step", drop_at=(0.5, 0.75), warmup_steps=3),
    Schedule(kind="wsd", warmup_steps=7),
    Schedule(kind="wsd", drop_at=(0.5,), final_ratio=0.1),
]


def _gpt2_lr(step, peak, warmup, decay_steps, low):
    """Warm-up and cosine as the paper's language runs have them."""
    if step < warmup:
        return peak * step / warmup
    if step > decay_steps:
        return low
    progress = (step - warmup) / (decay_steps - warmup)
    return low + 0.5 * (1.0 + math.cos(math.pi * progress)) * (peak - low)


@pytest.mark.parametrize("decay_steps", [None, 60, 100, 130])
def test_cosine_has_the_bits_of_the_papers_formula(decay_steps):
    schedule = Schedule(kind="cosine", warmup_steps=12, decay_steps=decay_steps, final_lr=6e-5)
    for step in range(140):
        assert value(schedule, step, 6e-4, 100) == _gpt2_lr(step, 6e-4, 12, decay_steps or 100, 6e-5)


def test_cosine_ends_on_a_tenth_unless_told():
    assert value(Schedule(kind="cosine"), 100, 2.0, 100) == pytest.approx(0.2, rel=1e-15)
    assert value(Schedule(kind="linear"), 100, 2.0, 100) == 0.0


@pytest.mark.parametrize("schedule", KINDS, ids=str)
def test_array_equals_scalar(schedule):
    expected = [value(schedule, step, 0.3, 100) for step in range(140)]
    np.testing.assert_allclose(values(schedule, np.arange(140), 0.3, 100), expected, rtol=1e-14, atol=1e-18)


@pytest.mark.parametrize("schedule", KINDS, ids=str)
def test_json_round_trip(schedule):
    fields = json.loads(json.dumps(dataclasses.asdict(schedule)))
    assert Schedule(**fields | {"drop_at": tuple(fields["drop_at"])}) == schedule


def _torch_lrs(make_scheduler, peak, steps):
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=peak)
    scheduler = make_scheduler(optimizer)
    lrs = []
    for _ in range(steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lrs


def test_against_torch():
    scheduler = torch.optim.lr_scheduler
    cosine = _torch_lrs(lambda o: scheduler.CosineAnnealingLR(o, 90, eta_min=0.01), 0.4, 90)
    steps = np.arange(90)
    np.testing.assert_allclose(values(Schedule(kind="cosine", final_lr=0.01), steps, 0.4, 90), cosine, rtol=1e-9)
    linear = _torch_lrs(lambda o: scheduler.LinearLR(o, 1.0, 0.25, 60), 0.4, 90)
    ours = values(Schedule(kind="linear", final_ratio=0.25, decay_steps=60), steps, 0.4, 90)
    np.testing.assert_allclose(ours, linear, rtol=1e-9)
    drops = _torch_lrs(lambda o: scheduler.MultiStepLR(o, [45, 68], 0.1), 0.4, 90)
    ours = values(Schedule(kind="step", drop_at=(0.5, 0.75)), steps, 0.4, 90)
    np.testing.assert_allclose(ours, drops, rtol=1e-12)


@given(
    peak=st.floats(1e-6, 10),
    steps=st.integers(1, 300),
    warmup=st.integers(0, 300),
    ratio=st.floats(0, 1),
)
def test_integral_closed_forms(peak, steps, warmup, ratio):
    """Sums over the steps 0 .. T-1; the cosine's sum is a half turn of equally spaced points."""
    low, warmup = ratio * peak, min(warmup, steps - 1)
    ramp, rest = peak * (warmup - 1) / 2 if warmup else 0.0, steps - warmup
    expected = {
        "constant": peak * rest,
        "cosine": low * rest + (peak - low) * (rest + 1) / 2,
        "linear": low * rest + (peak - low) * (rest + 1) / 2,
    }
    for kind, tail in expected.items():
        schedule = Schedule(kind=kind, warmup_steps=warmup, final_ratio=None if kind == "constant" else ratio)
        assert integral(schedule, peak, steps) == pytest.approx(ramp + tail, rel=1e-10)


def test_integral_of_a_range_and_two_phases():
    schedule = Schedule(kind="two_phase", drop_at=(0.5,), final_lr=1e-3)
    assert integral(schedule, 0.2, 1000) == pytest.approx(500 * 0.2 + 500 * 1e-3)
    assert integral(schedule, 0.2, 1000, 400, 600) == pytest.approx(100 * 0.2 + 100 * 1e-3)


def test_values_stay_between_zero_and_peak():
    for schedule in KINDS:
        lr = values(schedule, np.arange(200), 0.3, 100)
        assert lr.min() >= 0 and lr.max() <= 0.3 * (1 + 1e-12)


def test_warm_up_of_one_step_and_of_the_whole_decay():
    assert value(Schedule(warmup_steps=1), 0, 0.5, 10) == 0.0
    assert value(Schedule(warmup_steps=1), 1, 0.5, 10) == 0.5
    whole = Schedule(kind="cosine", warmup_steps=10, decay_steps=10, final_ratio=0.1)
    assert value(whole, 9, 1.0, 10) == 0.9
    assert value(whole, 10, 1.0, 10) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "cosin"},
        {"warmup_steps": -1},
        {"kind": "constant", "decay_steps": 3},
        {"kind": "cosine", "warmup_steps": 9, "decay_steps": 3},
        {"kind": "cosine", "final_lr": 0.1, "final_ratio": 0.1},
        {"kind": "cosine", "final_lr": math.nan},
        {"kind": "constant", "final_lr": 0.1},
        {"kind": "two_phase", "drop_at": (0.5,)},
        {"kind": "two_phase", "final_lr": 0.1},
        {"kind": "step"},
        {"kind": "step", "drop_at": (0.75, 0.5)},
        {"kind": "step", "drop_at": (1.5,)},
        {"kind": "step", "drop_at": (0.5,), "drop_factor": 0.0},
        {"kind": "linear", "drop_at": (0.5,)},
    ],
    ids=str,
)
def test_impossible_schedules_are_refused_in_one_line(fields):
    with pytest.raises(DecaylabError) as error:
        Schedule(**fields)
    assert "\n" not in str(error.value)


def test_impossible_runs_are_refused():
    with pytest.raises(DecaylabError, match="at least one step"):
        value(Schedule(), 0, 1.0, 0)
    with pytest.raises(DecaylabError, match="learning rate"):
        value(Schedule(), 0, -1.0, 5)
    with pytest.raises(DecaylabError, match="longer than the run"):
        value(Schedule(kind="cosine", warmup_steps=50), 0, 1.0, 10)


def test_decay_multipliers():
    def at(step, **fields):
        return decay_multiplier(DecaySchedule(**fields), step, 100, lr_ratio=0.3)

    assert at(7) == 1.0
    assert at(7, kind="with_lr") == 0.3
    assert at(0, kind="cosine_to_zero") == 1.0
    assert at(50, kind="cosine_to_zero") == pytest.approx(0.5)
    assert at(100, kind="cosine_to_zero") == at(300, kind="cosine_to_zero") == 0.0
    assert [at(s, kind="early_only", fraction=0.29) for s in (0, 28, 29, 99)] == [1, 1, 0, 0]
    assert [at(s, kind="step", drop_at=(0.5, 0.75)) for s in (49, 50, 75)] == pytest.approx([1, 0.1, 0.01])
    assert [at(s, kind="step", drop_at=(0.5,), drop_factor=0.0) for s in (49, 50)] == [1.0, 0.0]


@given(step=st.integers(0, 500), ratio=st.floats(0, 2), kind=st.sampled_from(["constant", "with_lr", "cosine_to_zero"]))
def test_decay_multiplier_is_a_share(step, ratio, kind):
    assert 0.0 <= decay_multiplier(DecaySchedule(kind=kind), step, 200, lr_ratio=ratio) <= 1.0


@pytest.mark.parametrize(
    "fields",
    [{"kind": "cosine"}, {"kind": "step"}, {"fraction": 2.0}, {"kind": "early_only", "drop_at": (0.5,)}],
    ids=str,
)
def test_impossible_decay_schedules_are_refused(fields):
    with pytest.raises(DecaylabError):
        DecaySchedule(**fields)


def test_a_decay_that_follows_the_learning_rate_needs_it():
    with pytest.raises(DecaylabError, match="lr_ratio"):
        decay_multiplier(DecaySchedule(kind="with_lr"), 0, 10)


@pytest.mark.parametrize(("share", "final"), [(0.8, 0.0), (0.5, 0.1)])
def test_wsd_against_transformers(share, final):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = transformers.get_wsd_schedule(
        optimizer,
        num_warmup_steps=10,
        num_stable_steps=round(share * 100) - 10,
        num_decay_steps=100 - round(share * 100),
        min_lr_ratio=final,
        decay_type="linear",
    )
    expected = []
    for _ in range(104):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    drop = () if share == 0.8 else (share,)
    ours = values(Schedule(kind="wsd", warmup_steps=10, drop_at=drop, final_ratio=final), range(104), 0.3, 100)
    after = 0 if final == 0 else 10  # theirs warms up from the final learning rate, ours from 0
    np.testing.assert_allclose(ours[after:], expected[after:], rtol=1e-12, atol=1e-16)
