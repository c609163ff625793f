"""Searches of functions with a known answer."""

import json
import math

import pytest
from tests.support import quadratic

from decaylab import tune
from decaylab.errors import DecaylabError
from decaylab.tuning import Plan


def _tune(function, tmp_path, **settings):
    options = {"steps": 32_000, "lr": 1e-3, "storage": tmp_path / "study.journal", "say": lambda line: None}
    return tune(function, **{**options, **settings})


def test_the_weight_decay_is_found_with_an_interval(tmp_path):
    answer = _tune(quadratic.loss, tmp_path, weight_decay=0.5, confirm=3)
    truth = 3 / 32
    assert answer.verdict == "found"
    assert answer.weight_decay.low < truth < answer.weight_decay.high
    assert answer.weight_decay.value == pytest.approx(truth, rel=0.5)
    assert answer.alike[0] < truth < answer.alike[1] and answer.gain.high < 0
    assert answer.exponent.low < 1 < answer.exponent.high  # a constant number of timescales is steps^-1
    assert answer.confirmation.high < 0  # better than the present value, on seeds that the search never saw
    assert {t.seed for t in answer.trials if t.steps == 32_000} == {1000, 1001, 1002}
    assert answer.cost["full_runs"] == pytest.approx(sum(t.steps for t in answer.trials) / 32_000, abs=0.1)
    shown = json.loads(answer.as_json())
    assert shown["schema"] == 1 and shown["weight_decay"]["value"] == answer.weight_decay.value
    assert len(shown["trials"]) == len(answer.trials) and all(
        key in shown for key in ("verdict", "sentence", "assumed", "cost")
    )


def test_where_decay_does_not_help_it_says_so(tmp_path):
    answer = _tune(quadratic.alike, tmp_path)
    assert answer.verdict == "alike" and answer.weight_decay.value == 0.0
    assert "does not lower the loss" in answer.sentence and answer.alike[0] == 0.0


def test_short_runs_that_decay_only_harms_do_not_place_the_optimum(tmp_path):
    answer = _tune(quadratic.overfits, tmp_path, budget=3)
    assert answer.verdict == "found" and answer.weight_decay.low < 3 / 32 < answer.weight_decay.high
    assert answer.weight_decay.value == pytest.approx(3 / 32, rel=0.6)
    assert "as it did up to there" in " ".join(answer.assumed)  # two lengths show an optimum
    alike = _tune(quadratic.alike, tmp_path, name="alike", storage=tmp_path / "alike.journal")
    assert any("its exponent is the prior's" in text for text in alike.assumed)


def test_a_search_goes_on_from_what_was_trained(tmp_path):
    calls = []

    def counted(**settings):
        calls.append(settings)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return quadratic.loss(**settings)

    with pytest.raises(KeyboardInterrupt):
        _tune(counted, tmp_path)
    before = len(calls)
    answer = _tune(counted, tmp_path)
    assert answer.verdict == "found"
    settings = [tuple(sorted(c.items())) for c in calls]
    assert len(set(settings)) >= len(settings) - 2  # the one that was stopped; the repeat of the contract check
    assert before == 30


def test_learning_rate_alone_and_both(tmp_path):
    def both(weight_decay, lr, steps, seed):
        return quadratic.loss(weight_decay, lr, steps, seed) + 0.03 * math.log(lr / 2e-3) ** 2

    alone = _tune(both, tmp_path, lr=(3e-4, 2e-2), weight_decay=0.05, tune_weight_decay=False, name="alone")
    assert alone.weight_decay.value == 0.05 and alone.lr.low < 2e-3 < alone.lr.high
    found = _tune(both, tmp_path, lr=(3e-4, 2e-2), budget=20, name="both", storage=tmp_path / "both.journal")
    assert found.verdict == "found"
    assert found.lr.low < 2e-3 < found.lr.high
    assert found.timescales.low < 3 < found.timescales.high


def test_a_diverged_run_is_a_bound_and_never_in_a_fit(tmp_path):
    def diverges(weight_decay, lr, steps, seed):
        return math.nan if lr * weight_decay * steps > 8 else quadratic.loss(weight_decay, lr, steps, seed)

    answer = _tune(diverges, tmp_path)
    assert answer.verdict == "found" and answer.weight_decay.low < 3 / 32 < answer.weight_decay.high
    assert any(t.status == "diverged" and t.value is None for t in answer.trials)


@pytest.mark.parametrize(
    "function, said",
    [
        (lambda weight_decay, lr, steps, seed: 1 + weight_decay + seed, "ignores {steps}"),
        (lambda weight_decay, lr, steps, seed: 1 + weight_decay + 1 / steps, "ignores {seed}"),
        (lambda weight_decay, lr, steps, seed: math.nan, "diverges at lr 0.001"),
        (lambda weight_decay, lr, steps, seed: "good", "gave str where a loss is needed"),
        (lambda weight_decay, lr, steps, seed: 1 / 0, "raised ZeroDivisionError at wd 0"),
    ],
)
def test_a_script_that_breaks_the_contract_is_one_line(function, said, tmp_path):
    with pytest.raises(DecaylabError, match=said.replace("{", r"\{").replace("}", r"\}")):
        _tune(function, tmp_path)


def test_a_decay_that_reaches_no_weight(tmp_path):
    answer = _tune(lambda weight_decay, lr, steps, seed: quadratic.loss(0, lr, steps, seed), tmp_path)
    assert answer.verdict == "reaches no weight" and answer.weight_decay.value is None


def test_generators_and_high_metrics(tmp_path):
    from decaylab.tuning import Metric

    def accuracy(**settings):
        for step in range(0, settings["steps"], settings["steps"] // 3):
            yield step, 0.0
        yield settings["steps"], 5 - quadratic.loss(**settings)

    answer = _tune(accuracy, tmp_path, metric=Metric(name="accuracy", maximize=True))
    assert answer.verdict == "found" and answer.weight_decay.low < 3 / 32 < answer.weight_decay.high


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"budget": 0.5}, "costs at least"),
        ({"steps": 200}, "plain sweep"),
        ({"lr": 0.0}, "above 0"),
        ({"seeds": 1}, "at least 2"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"tune_weight_decay": False}, "give its value"),
    ],
)
def test_plans_that_make_no_sense(settings, said):
    with pytest.raises(DecaylabError, match=said):
        Plan(**{"steps": 32_000, "lr": 1e-3, **settings}).lengths()


def test_the_budget_is_kept(tmp_path):
    for budget in (1.6, 3.0, 6.0):
        answer = _tune(quadratic.alike, tmp_path, budget=budget, name=f"b{budget}", storage=tmp_path / f"{budget}.j")
        assert answer.cost["full_runs"] <= budget + 0.05
