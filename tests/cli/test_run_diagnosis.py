"""What decay did in a run, from its records and its settings: the sums against a loop over the steps."""

from dataclasses import replace

import pandas as pd
import pytest

from decaylab.cli.run_diagnosis import decay_by_step, diagnosis, too_strong
from decaylab.config.schema import LanguageRun, Optimizer, VisionRun
from decaylab.schedules import value


def _run(rule="decoupled", weight_decay=0.5, steps=200, **optimizer):
    base = LanguageRun(steps=steps)
    schedule = replace(base.schedule, warmup_steps=20)
    settings = Optimizer(**{"name": "adamw", "lr": 0.01, **optimizer})
    decay = replace(base.decay, rule=rule, weight_decay=weight_decay)
    return replace(base, schedule=schedule, optimizer=settings, decay=decay)


@pytest.mark.parametrize(
    ("rule", "optimizer", "share"),
    [
        ("decoupled", {}, lambda lr: lr * 0.5),
        ("independent", {}, lambda lr: 0.5 * lr / 0.01),
        ("constant", {}, lambda lr: 0.5),
        ("quadratic-lr", {}, lambda lr: lr**2 * 0.5),
        ("corrected", {}, lambda lr: 0.5 * lr**2 / 0.01),
        ("l2", {"name": "sgd", "momentum": 0.9}, lambda lr: lr * 0.5 / (1 - 0.9)),
    ],
)
def test_the_share_of_each_step(rule, optimizer, share):
    run = _run(rule, **optimizer)
    expected = [share(value(run.schedule, step, 0.01, 200)) for step in range(200)]
    assert decay_by_step(run, 200) == pytest.approx(expected)


@pytest.mark.parametrize("run", [_run("cautious"), _run("l2"), _run(weight_decay=0.0)])
def test_where_the_settings_do_not_tell_nothing_is_said(run):
    assert decay_by_step(run, 200) is None and too_strong(run) == ""


def test_decay_that_leaves_nothing_is_said():
    said = too_strong(_run(weight_decay=30))
    assert "takes 30 % of each weight a step at the peak: only the last 3 steps" in said
    assert "at decay.weight_decay 1 it is 1 %" in said
    assert too_strong(_run(weight_decay=0.9)) == ""
    assert "30 %" in too_strong(replace(VisionRun(), decay=replace(VisionRun().decay, weight_decay=3.0)))


def _table(norms, every=50):
    rows = [(step * every, "weights/norm/matrix", norm) for step, norm in enumerate(norms, 1)]
    rows += [(step * every, "effective_lr/matrix", 0.01 / norm) for step, norm in enumerate(norms, 1)]
    rows += [(step * every, "train/loss", 1.0) for step in range(1, len(norms) + 1)]
    return pd.DataFrame(rows, columns=["step", "key", "value"])


def test_the_diagnosis_of_watch_from_what_a_run_recorded():
    passed = decay_by_step(_run(), 200).sum()
    said = diagnosis(_run(), _table([10.0, 8.0, 7.0, 6.0]), 200)
    assert f"{passed:.3g} timescales have passed" in said and "-40 %" in said
    assert "No weight decay is in force" in diagnosis(_run(weight_decay=0.0), _table([1.0, 2.0, 3.0]), 150)
    assert "Decay is idle" in diagnosis(_run(weight_decay=1e-4), _table([1.0, 1.0, 1.0, 1.0]), 200)
    assert diagnosis(_run("cautious"), _table([1.0]), 50) == ""
    assert diagnosis(_run(), _table([]), 200) == ""


@pytest.mark.parametrize("rule", ["follow_norms", "FixNorm", "sphere-projection", "mine.py:Rule"])
def test_a_rule_that_acts_without_a_coefficient_is_not_called_no_decay(rule):
    table = pd.DataFrame([(s, "weights/norm", 5.0) for s in (50, 100, 200)], columns=["step", "key", "value"])
    assert diagnosis(_run(rule, 0.0), table, 200) == ""
    assert diagnosis(_run("scheduled", 0.0), table, 200).startswith("No weight decay is in force.")
    assert diagnosis(_run("loss-l2", 0.0), table, 200).startswith("No weight decay is in force.")
