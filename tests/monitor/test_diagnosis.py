import math

import pytest
import torch
from torch import nn

from decaylab import watch
from decaylab.monitor import diagnose
from decaylab.monitor.formatting import number, percent
from decaylab.monitor.text import describe
from decaylab.monitor.thresholds import STRONG_ROTATION


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
    assert "nothing" in describe(diagnose([])).lower()
    only = diagnose([{"step": 0, "timescale/passed": 0.5, "timescale/passed/matrix": 0.5, "timescale/steps": 10.0}])
    assert only.verdict in ("too strong", "settling") and "nan" not in describe(only)


def test_weights_that_are_not_finite_are_said_plainly():
    def gradient(p, count=[0]):  # noqa: B006
        count[0] += 1
        return torch.full_like(p, torch.nan if count[0] > 70 else 1.0)

    log = _run(0.01, 0.5, 100, gradient=gradient)
    found = log.diagnosis()
    assert (found.verdict, found.broken) == ("not finite", 40)
    assert log.summary().startswith("The weights are not finite (NaN or infinite) since the record of step 40")


def test_no_gradients_at_all():
    net = nn.Linear(5, 5, bias=False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.5)
    log = watch(net, optimizer, every=5)
    for _ in range(100):
        optimizer.step()
    assert log.diagnosis().verdict == "no gradients"
    assert log.summary() == (
        "No parameter had a gradient: in 96 steps the optimizer has moved none, and none has decayed."
    )


def test_too_strong_at_the_peak_and_annealed_since():
    log = _run(0.02, 1.0, 590, schedule=lambda t: 0.5 + 0.5 * math.cos(math.pi * t * 590 / 600))
    found = log.diagnosis()
    assert found.verdict == "annealing" and found.strong_peak
    text = log.summary()
    assert text.startswith("Equilibrium was reached while the learning rate was high, and the learning rate has fallen")
    assert "Near the peak of the learning rate decay was too strong" in text
    assert "more." not in text
    mild = _run(0.01, 0.5, 1500, schedule=lambda t: 0.5 + 0.5 * math.cos(math.pi * t))
    assert mild.diagnosis().verdict == "annealing" and "too strong" not in mild.summary()


@pytest.mark.parametrize("lr", [0.01, 0.02, 0.1, torch.tensor(0.01)])
def test_a_timescale_of_100_steps_is_not_too_strong(lr):
    assert _run(lr, 0.01 / float(lr), 50).diagnosis().verdict != "too strong"
    assert _run(lr, 0.0101 / float(lr), 50).diagnosis().verdict == "too strong"
    rounded = [{"step": 0, "timescale/passed": 0.5, "timescale/steps": 100 * (1 - 1e-7)}]
    assert diagnose(rounded).verdict != "too strong"


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_a_warm_up_from_zero_is_compared_with_the_first_positive_rate(weight_decay):
    log = _run(0.01, weight_decay, 400, schedule=lambda t: min(1.0, 10 * t))
    since = log.diagnosis().state
    assert log.records[0]["effective_lr"] == 0 and since.effective_lr_since == 10
    now, then = (log.records[i]["effective_lr"] for i in (-1, 1))
    assert since.effective_lr_change == pytest.approx(now / then)
    assert "times that of step 10, the first record with a positive one" in log.summary()
    assert "nan" not in log.summary() and "inf" not in log.summary() and "- times" not in log.summary()
    never = _run(0.01, weight_decay, 50, schedule=lambda t: 0.0).summary()
    assert "times" not in never.replace("timescale", "") and "nan" not in never


def test_large_numbers_look_alike():
    assert [number(x) for x in (999.4, 999.6, 1000.0, 1234.5)] == ["999", "1,000", "1,000", "1,234"]
    assert [percent(x) for x in (-0.9949, -0.996, 1.0, 0.051)] == ["-99 %", "-100 %", "+100 %", "+5.1 %"]


def test_a_last_step_without_gradients_does_not_hide_the_decay():
    torch.manual_seed(0)
    net = nn.Linear(4, 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.1)
    log = watch(net, optimizer, every=1)
    for step in range(6):
        optimizer.zero_grad()
        net(torch.randn(8, 4)).square().mean().backward()
        if step % 2:
            net.weight.grad = net.bias.grad = None
        optimizer.step()
    assert log.diagnosis().verdict == "unknown rate"
