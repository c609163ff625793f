"""Conversions against each convention's own update, written out again and simulated with torch where torch has it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decaylab.conventions import CONVENTIONS, Setting, convert, peak_decay
from decaylab.conventions.table import match
from decaylab.errors import DecaylabError
from decaylab.schedules import Schedule, values

KEYS = list(CONVENTIONS)
# The step of every convention as its source writes it: p after one step, from p, lambda, lr_t, peak lr and steps.
STEPS = {
    "torch": lambda p, wd, lr, peak, steps: p * (1 - lr * wd),
    "optax": lambda p, wd, lr, peak, steps: p + (-lr) * (wd * p),
    "optax_last": lambda p, wd, lr, peak, steps: p + wd * p,
    "keras": lambda p, wd, lr, peak, steps: p - p * wd * lr,
    "loshchilov_hutter": lambda p, wd, lr, peak, steps: p - (lr / peak) * wd * p,
    "loshchilov_hutter_normalised": lambda p, wd, lr, peak, steps: p - (lr / peak) * wd * math.sqrt(1 / steps) * p,
    "independent": lambda p, wd, lr, peak, steps: p * (1 - lr / peak * wd),
    "constant": lambda p, wd, lr, peak, steps: p * (1 - wd),
    "palm": lambda p, wd, lr, peak, steps: p * (1 - lr**2 * wd),
    "adamc": lambda p, wd, lr, peak, steps: p * (1 - wd * lr**2 / peak),
    "l2": lambda p, wd, lr, peak, steps: p - lr * (wd * p),
    "l2_loss": lambda p, wd, lr, peak, steps: p - lr * (wd / 2 * 2 * p),
    "l2_loss_full": lambda p, wd, lr, peak, steps: p - lr * (wd * 2 * p),
}


def _trajectory(key, wd, lrs, peak):
    p, path = 1.0, []
    for lr in lrs:
        p = STEPS[key](p, wd, lr, peak, len(lrs))
        path.append(p)
    return np.array(path)


@pytest.mark.parametrize("from_", KEYS)
def test_the_same_step_at_the_peak_and_everywhere_where_exact(from_):
    peak, wd = 0.2, 0.03 if from_ != "optax_last" else -0.03
    lrs, flat = values(Schedule(kind="cosine", warmup_steps=3), np.arange(40), peak, 40), np.full(40, peak)
    for to in KEYS:
        other = convert(wd, from_, to, lr=peak, total_steps=40)
        at_peak = STEPS[from_](1.0, wd, peak, peak, 40)
        assert STEPS[to](1.0, other, peak, peak, 40) == pytest.approx(at_peak, rel=1e-14)
        same = np.allclose(_trajectory(from_, wd, lrs, peak), _trajectory(to, other, lrs, peak), rtol=1e-13, atol=0)
        assert same == (match(from_, to) == "exact")
        assert match(from_, to, schedule_is_flat=True) == "exact"
        np.testing.assert_allclose(_trajectory(from_, wd, flat, peak), _trajectory(to, other, flat, peak), rtol=1e-13)


@given(
    value=st.floats(-1e3, 1e3),
    from_=st.sampled_from(KEYS),
    to=st.sampled_from(KEYS),
    lr=st.floats(1e-6, 10),
    steps=st.integers(1, 10**7),
    momentum=st.floats(0, 0.999),
    dampening=st.floats(0, 0.9),
)
def test_round_trip(value, from_, to, lr, steps, momentum, dampening):
    setting = {"lr": lr, "total_steps": steps, "momentum": momentum, "dampening": dampening}
    there = convert(value, from_, to, **setting)
    assert convert(there, to, from_, **setting) == pytest.approx(value, rel=1e-12, abs=1e-300)
    assert peak_decay(there, to, Setting(**setting)) == pytest.approx(peak_decay(value, from_, Setting(**setting)))


def test_loshchilov_hutter_normalisation_is_the_papers():
    """lambda = lambda_norm sqrt(b / (B T)) with batch b, B examples, T epochs."""
    batch, examples, epochs = 128, 51_200, 30
    steps = examples // batch * epochs
    assert convert(0.025, "loshchilov_hutter_normalised", "loshchilov_hutter", lr=0.1, total_steps=steps) == (
        pytest.approx(0.025 * math.sqrt(batch / (examples * epochs)))
    )
    with pytest.raises(DecaylabError, match="steps"):
        convert(0.1, "torch", "loshchilov_hutter_normalised", lr=0.1)


def _torch_path(optimizer_class, penalty=None, **options):
    p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = optimizer_class([p], **options)
    path = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = (p * 0).sum() if penalty is None else penalty(p)
        loss.backward()
        optimizer.step()
        path.append(p.item())
    return path


def test_torch_adamw_and_sgd_are_what_the_table_says():
    lr, wd = 0.1, 0.3
    expected = [(1 - lr * wd) ** step for step in range(1, 6)]
    assert _torch_path(torch.optim.AdamW, lr=lr, weight_decay=wd) == pytest.approx(expected, rel=1e-12)
    assert _torch_path(torch.optim.SGD, lr=lr, weight_decay=wd) == pytest.approx(expected, rel=1e-12)
    full = convert(wd, "torch", "l2_loss_full", lr=lr)
    half = convert(wd, "torch", "l2_loss", lr=lr)
    assert _torch_path(torch.optim.SGD, lambda p: full * (p**2).sum(), lr=lr) == pytest.approx(expected, rel=1e-12)
    assert _torch_path(torch.optim.SGD, lambda p: half / 2 * (p**2).sum(), lr=lr) == pytest.approx(expected, rel=1e-12)


def test_sgd_momentum_amplifies_l2():
    assert convert(5e-4, "l2", "torch", lr=0.1, momentum=0.9) == pytest.approx(5e-3)
    assert convert(5e-4, "l2", "torch", lr=0.1, momentum=0.9, dampening=0.9) == pytest.approx(5e-4)
    assert match("l2", "torch", momentum=0.9) == "long_run"
    assert match("l2", "l2_loss_full", momentum=0.9) == "exact"
    assert match("l2", "constant", momentum=0.9) == "peak"


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((0.1, "torhc", "l2"), {"lr": 0.1}),
        ((0.1, "torch", "l3"), {"lr": 0.1}),
        ((0.1, "torch", "l2"), {"lr": 0.0}),
        ((0.1, "torch", "l2"), {"lr": math.nan}),
        ((math.nan, "torch", "l2"), {"lr": 0.1}),
        ((0.1, "torch", "l2"), {"lr": 0.1, "momentum": 1.0}),
        ((0.1, "torch", "l2"), {"lr": 0.1, "momentum": 0.9, "dampening": 1.0}),
        ((0.1, "torch", "l2"), {"lr": 0.1, "total_steps": 0}),
    ],
    ids=str,
)
def test_mistakes_get_one_line(arguments, options):
    with pytest.raises(DecaylabError) as error:
        convert(*arguments, **options)
    assert "\n" not in str(error.value)
