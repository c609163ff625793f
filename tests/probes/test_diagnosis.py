import math

import pytest
import torch
from torch import nn

from decaylab import watch
from decaylab.probes import diagnose
from decaylab.probes.diagnosis import STRONG_ROTATION


def _run(
    lr, weight_decay, steps, make=torch.optim.AdamW, gradient=torch.randn_like, every=10, schedule=None, **options
):
    """Random gradients on two matrices, the theory's own setting."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(40, 30, bias=False), nn.Linear(30, 20, bias=False))
    optimizer = make(net.parameters(), lr=lr, weight_decay=weight_decay, **options)
    log = watch(net, optimizer, every=every, roles={"*": "matrix"})
    for step in range(steps):
        if schedule:
            optimizer.param_groups[0]["lr"] = lr * schedule(step / steps)
        for p in net.parameters():
            p.grad = gradient(p)
        optimizer.step()
    log.remove()
    return log


def test_equilibrium_is_reached_and_its_numbers_are_the_theorys():
    log = _run(0.01, 0.5, 1000)
    found = log.diagnosis()
    assert found.verdict == "equilibrium"
    assert found.state.passed == pytest.approx(991 * 0.005)
    assert found.state.timescale == pytest.approx(200)
    assert found.state.rotation == pytest.approx(found.state.predicted, rel=0.06)
    assert found.state.predicted == pytest.approx(math.sqrt(2 * 0.005 * 0.1 / 1.9))
    # In equilibrium the variance added per step, lr^2 a coordinate, is what decay takes away, 2 c norm^2.
    assert found.state.norm == pytest.approx(math.sqrt(0.01 * 1800 / (2 * 0.5)), rel=0.1)
    text = log.summary()
    assert text.startswith("Equilibrium reached: 4.95 timescales have passed (one is 200 steps)")
    assert "The effective LR is" in text and "the prediction" in text and "of an update is decay" in text
    assert "It is off" not in text


@pytest.mark.parametrize(("start", "word"), [(1.0, "growing"), (30.0, "shrinking")])
def test_before_equilibrium_it_says_how_far_and_in_which_direction(start, word):
    def make(params, **options):
        params = list(params)
        for p in params:
            p.data *= start
        return torch.optim.AdamW(params, **options)

    log = _run(0.01, 0.5, 60, make=make)
    assert log.diagnosis().verdict == "settling"
    assert "Not yet in equilibrium: 0.255 timescales have passed (one is 200 steps)" in log.summary()
    assert "takes some 249 steps more" in log.summary()
    assert f"still {word} towards it" in log.summary()


def test_idle():
    log = _run(1e-6, 1e-3, 100)
    assert log.diagnosis().verdict == "idle"
    assert log.summary().startswith("Decay is idle: the norms do not move")
    assert "1,000,000,000 steps" in log.summary()


def test_too_strong():
    log = _run(0.1, 0.5, 200)
    assert log.diagnosis().verdict == "too strong"
    assert f"rotation above {STRONG_ROTATION:.2f} radians" in log.summary()
    assert "One timescale is 20 steps" in log.summary()


def test_no_decay():
    log = _run(0.01, 0.0, 200)
    assert log.diagnosis().verdict == "no decay"
    assert log.summary().startswith("No weight decay is in force. In 191 steps the weight norm has grown by +")


def test_l2_in_adam_has_no_rate():
    log = _run(0.01, 0.1, 200, make=torch.optim.Adam)
    assert log.diagnosis().verdict == "unknown rate"
    assert "L2" in log.summary() and "of an update is decay" in log.summary()


def test_correlated_updates_are_pointed_out():
    log = _run(0.01, 0.5, 1200, gradient=torch.ones_like)  # always the same way: no rotation in the end
    assert log.diagnosis().verdict == "equilibrium"
    assert "It is off where" in log.summary()


def test_a_learning_rate_that_goes_to_zero():
    log = _run(0.01, 0.5, 1500, schedule=lambda t: max(0.0, min(1.0, 2 - 2.2 * t)))
    found = log.diagnosis()
    assert found.verdict == "annealing" and math.isinf(found.state.timescale)
    assert found.peak.timescale == pytest.approx(200, rel=1.0)
    assert log.summary().startswith("Equilibrium was reached while the learning rate was high")
    assert "is now infinitely many steps" in log.summary()
    early = _run(0.01, 0.5, 150, schedule=lambda t: float(t < 0.5))
    assert early.diagnosis().verdict == "settling"
    assert "At a learning rate of zero it stays so." in early.summary()


def test_nothing_recorded_and_partial_records():
    assert diagnose([]).verdict == "nothing recorded"
    assert "nothing" in diagnose([]).text.lower()
    only = diagnose([{"step": 0, "timescale/passed": 0.5, "timescale/passed/matrix": 0.5, "timescale/steps": 10.0}])
    assert only.verdict in ("too strong", "settling") and "nan" not in only.text
