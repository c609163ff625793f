"""Whole explanations: the example of the documentation, consistency of the fields, refusals, and the sentences."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from decaylab.conventions import convert, explain
from decaylab.conventions.reading import reading
from decaylab.errors import DecaylabError
from decaylab.schedules import Schedule, values


def _gpt(**changes):
    settings = {"lr": 4e-4, "weight_decay": 0.1, "schedule": Schedule(kind="cosine"), "steps": 33_165, "batch_size": 96}
    return explain(**settings | {"tokens": 3_260_252_160} | changes)


def test_the_numbers_of_a_gpt2_run():
    run = _gpt()
    lrs = values(Schedule(kind="cosine"), range(33_165), 4e-4, 33_165)
    assert run.peak.factor_per_step == pytest.approx(1 - 4e-5)
    assert run.end.lr == pytest.approx(lrs[-1], rel=1e-15)
    assert run.end.factor_per_step == pytest.approx(1 - 0.1 * lrs[-1])
    assert run.total_shrinkage == pytest.approx(np.prod(1 - 0.1 * lrs), rel=1e-12)
    assert run.timescales_in_run == pytest.approx(0.1 * lrs.sum())
    assert run.peak.timescale_steps == pytest.approx(25_000)
    assert run.peak.timescale_share_of_run == pytest.approx(25_000 / 33_165)
    assert run.peak.timescale_tokens == pytest.approx(25_000 * 96 * 1024)
    assert run.peak.half_life_steps == pytest.approx(25_000 * math.log(2), rel=1e-4)
    assert run.peak.rotation_per_step_degrees == pytest.approx(math.degrees(math.sqrt(2 * 4e-5 * 0.1 / 1.9)))
    assert run.peak.equilibrium_rms_weight == pytest.approx(math.sqrt(4e-4 / 0.2))


def test_equivalents_are_the_conversions_and_shrink_as_much():
    run = _gpt()
    lrs = values(Schedule(kind="cosine"), range(33_165), 4e-4, 33_165)
    shrink = {
        "constant": lambda wd: (1 - wd) ** 33_165,
        "optax_last": lambda wd: (1 + wd) ** 33_165,
        "palm": lambda wd: np.prod(1 - wd * lrs**2),
        "adamc": lambda wd: np.prod(1 - wd * lrs**2 / 4e-4),
    }
    for row in run.equivalents:
        assert row.value == pytest.approx(convert(0.1, "torch", row.convention, lr=4e-4, total_steps=33_165))
        if row.convention in shrink:
            assert row.match == "peak"
            assert shrink[row.convention](row.value_same_total) == pytest.approx(run.total_shrinkage, rel=1e-9)
        else:
            assert row.match == "exact" and row.value_same_total == row.value


def test_any_convention_describes_the_same_run():
    run = _gpt()
    for row in run.equivalents:
        if row.match == "exact" and not row.convention.startswith("l2"):
            again = _gpt(weight_decay=row.value, convention=row.convention)
            assert again.total_shrinkage == pytest.approx(run.total_shrinkage, rel=1e-12)
            assert again.peak.timescale_steps == pytest.approx(run.peak.timescale_steps)


def test_sgd_with_momentum_against_torch():
    schedule = Schedule(kind="step", drop_at=(0.5,))
    run = explain(optimizer="sgd", momentum=0.9, lr=0.1, weight_decay=5e-3, schedule=schedule, steps=300)
    p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=5e-3)
    for lr in values(schedule, range(300), 0.1, 300):
        optimizer.param_groups[0]["lr"] = float(lr)
        p.grad = torch.zeros_like(p)
        optimizer.step()
    assert run.total_shrinkage == pytest.approx(p.item(), rel=1e-11)
    assert run.peak.timescale_steps == pytest.approx(0.1 / (0.1 * 5e-3))
    assert run.peak.relative_update_per_step == pytest.approx(math.sqrt(2 * 0.1 * 5e-3 / 1.9))
    assert run.peak.equilibrium_rms_weight is None


def test_epochs():
    run = explain(optimizer="sgd", lr=0.1, weight_decay=5e-4, batch_size=125, dataset_size=50_000, epochs=200)
    assert run.peak.timescale_epochs == pytest.approx(1 / (0.1 * 5e-4) / 400)


def test_warm_up_moves_the_peak_and_a_final_zero_has_no_timescale():
    run = explain(
        lr=1e-3, weight_decay=0.1, schedule=Schedule(kind="linear", warmup_steps=10, decay_steps=90), steps=100
    )
    assert run.peak.step == 10 and run.peak.lr == 1e-3
    assert run.end.lr == 0.0 and run.end.factor_per_step == 1.0 and run.end.timescale_steps is None


def test_json():
    text = json.dumps(dataclasses.asdict(_gpt()), allow_nan=False)
    assert json.loads(text)["peak"]["timescale_steps"] == pytest.approx(25_000)


def test_no_decay():
    run = _gpt(weight_decay=0.0)
    assert (
        run.total_shrinkage == 1.0 and run.peak.timescale_steps is None and run.peak.rotation_per_step_degrees is None
    )
    assert all(row.value == 0 for row in run.equivalents)
    assert "No decay" in reading(run)[0]


def test_a_million_steps_are_quick_and_finite():
    run = explain(optimizer="sgd", momentum=0.9, lr=0.1, weight_decay=1e-6, steps=1_000_000)
    assert run.total_shrinkage == pytest.approx(math.exp(-1), rel=1e-4)
    tiny = _gpt(weight_decay=1e-16)
    assert tiny.peak.half_life_steps == pytest.approx(math.log(2) / 4e-20)


@pytest.mark.parametrize(("lr", "weight_decay"), [(1e-190, 1.0), (1e-199, 0.1), (1e-160, 1e-30), (1e-90, 1e-100)])
def test_tiny_settings_are_finite(lr, weight_decay):
    schedule = Schedule(kind="linear", final_lr=0.0, warmup_steps=3)
    run = explain(lr=lr, weight_decay=weight_decay, schedule=schedule, steps=100, batch_size=10**9, seq_len=10**9)
    json.dumps(dataclasses.asdict(run), allow_nan=False)
    assert all(row.value is None for row in run.equivalents if row.convention == "palm" and lr < 1e-170)
    assert reading(run)
    with pytest.raises(DecaylabError, match="too small for palm"):
        convert(0.1, "torch", "palm", lr=1e-170)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "adam"}, "divided by the size of the gradient"),
        ({"optimizer": "adamm"}, "unknown optimizer"),
        ({"convention": "l2"}, "SGD's"),
        ({"convention": "torhc"}, "did you mean 'torch'"),
        ({"weight_decay": -0.1}, "grow"),
        ({"weight_decay": 0.1, "convention": "optax_last"}, "grow"),
        ({"weight_decay": 2500.0}, "nothing is left"),
        ({"weight_decay": math.inf}, "finite"),
        ({"lr": -1.0}, "learning rate"),
        ({"momentum": 0.9}, "momentum is SGD's"),
        ({"schedule": Schedule(kind="linear", final_lr=1.0)}, "above the peak"),
        ({"betas": (0.9, 1.5)}, "betas"),
        ({"steps": 1, "tokens": None, "schedule": Schedule(warmup_steps=1)}, "learning rate is 0"),
        ({"steps": 10, "tokens": None, "schedule": Schedule(warmup_steps=20)}, "longer than the run"),
        ({"lr": 1e-300, "weight_decay": 1e-300}, "no run feels it"),
        ({"lr": 1e-200, "convention": "palm"}, "no run feels it"),
    ],
    ids=str,
)
def test_impossible_settings(changes, words):
    with pytest.raises(DecaylabError, match=words) as error:
        _gpt(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "still matter"),
        ({"weight_decay": 1e-3}, "close to idle"),
        ({"weight_decay": 3.0}, "forgotten"),
        ({"weight_decay": 0.01}, "equilibrium is a limit here"),
        ({"tokens": None, "dataset_size": 33_165 * 96, "weight_decay": 0.3}, "below one epoch"),
        ({"tokens": None, "dataset_size": 33_165 * 12, "weight_decay": 0.3}, "lies between"),
        ({"tokens": None, "dataset_size": 33_165 * 12, "weight_decay": 0.01}, "acts little"),
    ],
    ids=str,
)
def test_sentences(changes, words):
    assert any(words in line for line in reading(_gpt(**changes)))
