"""Checks on effects against what was put in, and their error rates in simulated seeds."""

import math

import numpy as np
import pytest

from decaylab.experiments import effects
from decaylab.experiments.effects import optimum
from decaylab.experiments.evidence import Verdict
from decaylab.experiments.quantity import Quantity


class _Drawn:
    """Results in which a quantity is what was drawn for each setting and seed."""

    def __init__(self, values):
        self.values = values  # labels as sorted pairs -> one number a seed

    def _matching(self, where):
        return [key for key in self.values if set(where.items()) <= set(key)]

    def by_seed(self, where):
        (key,) = self._matching(where)
        return {seed: (key, seed) for seed in range(len(self.values[key]))}

    def values_of(self, label, where):
        return list(dict.fromkeys(dict(key)[label] for key in self._matching(where)))

    def ended(self, run):
        return True


VALUE = Quantity(name="value", unit="", read=lambda results, run: float(results.values[run[0]][run[1]]))


def _key(**labels):
    return tuple(sorted(labels.items()))


def test_the_level_of_a_share_of_an_effect():
    """Where the arm has exactly the share, the check is wrong as often as it says: 2.5 % on each side."""
    rng, found = np.random.default_rng(0), []
    check = effects.has_share(
        VALUE, this={"arm": "t"}, of={"arm": "o"}, baseline={"arm": "b"}, share=0.9, effect="lower"
    )
    for _ in range(2500):
        base = rng.normal(0, 3, 6)
        drawn = {"b": base, "o": base - 1 + rng.normal(0, 0.3, 6), "t": base - 0.9 + rng.normal(0, 0.3, 6)}
        found.append(check(_Drawn({_key(arm=arm): values for arm, values in drawn.items()})).verdict)
    rates = (found.count(Verdict.HOLDS) / 2500, found.count(Verdict.FAILS) / 2500)
    assert rates == pytest.approx((0.025, 0.025), abs=0.01)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_harm_is_turned(sign):
    drawn = {"b": np.zeros(4), "o": np.array([1.0, 1.1, 0.9, 1.0]), "t": np.array([1.0, 1.0, 0.9, 1.05])}
    drawn = _Drawn({_key(arm=arm): sign * values for arm, values in drawn.items()})
    arms = {"this": {"arm": "t"}, "of": {"arm": "o"}, "baseline": {"arm": "b"}}
    for effect, verdict in (("higher", Verdict.HOLDS), ("lower", Verdict.FAILS)):
        expected = verdict if sign > 0 else {Verdict.HOLDS: Verdict.FAILS, Verdict.FAILS: Verdict.HOLDS}[verdict]
        assert effects.has_share(VALUE, **arms, share=0.8, effect=effect)(drawn).verdict is expected


@pytest.mark.parametrize("vertex", [0.02, 0.1, 0.5])
def test_the_optimum_of_a_parabola_is_its_vertex(vertex):
    row = {s: 3 * math.log(s / vertex) ** 2 + 1 for s in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)}
    assert optimum(row) == pytest.approx(vertex, rel=1e-9)
    assert optimum({0.1: 2.0, 1.0: 1.0}) == 1.0 and optimum({0.1: 1.0, 0.3: 1.0, 1.0: 1.0}) == 0.1
    assert math.isnan(optimum({})) and math.isnan(optimum({0.1: math.nan, 1.0: 1.0}))
    assert optimum({0.1: math.inf, 0.3: 1.0, 1.0: 2.0}) == 0.3


def test_the_exponent_of_an_optimum():
    drawn = {
        _key(wd=wd, lr=lr): np.array([(math.log(wd) - math.log(0.1 * lr**-0.7) + e) ** 2 for e in (-0.1, 0.0, 0.1)])
        for wd in (0.001, 0.01, 0.1, 1.0, 10.0)
        for lr in (0.5, 1.0, 2.0, 4.0)
    }
    found = effects.optimum_slope(VALUE, best="wd", over="lr", where={}, low=-1.0, high=-0.5)(_Drawn(drawn))
    assert found.comparisons[0].estimate == pytest.approx(-0.7) and found.verdict is Verdict.HOLDS


def test_an_effect_that_grows():
    drawn = {
        _key(wd=wd, width=w): np.array([1.0, 2.0, 3.0]) - wd * w * np.array([1.0, 1.1, 0.9])
        for wd in (0, 1)
        for w in (1, 2, 3)
    }
    check = effects.effect_trend(VALUE, over="width", this={"wd": 1}, than={"wd": 0}, expect="falling")
    found = check(_Drawn(drawn))
    assert found.verdict is Verdict.HOLDS and found.comparisons[0].estimate == pytest.approx(-1.0)


def test_best_against_best_does_not_flatter_the_larger_range():
    """Two ranges of pure noise, one of twelve settings and one of two: neither best is better than the other."""
    rng, found = np.random.default_rng(0), []
    check = effects.best_is_lower(VALUE, over="cell", this={"side": "many"}, than={"side": "few"})
    for _ in range(800):
        drawn = {
            _key(side=side, cell=f"{side}{i}"): rng.normal(0, 1, 7)
            for side, n in (("many", 12), ("few", 2))
            for i in range(n)
        }
        found.append(check(_Drawn(drawn)).verdict)
    rates = (found.count(Verdict.HOLDS) / 800, found.count(Verdict.FAILS) / 800)
    assert rates == pytest.approx((0.025, 0.025), abs=0.015)
    low = {key: values - 9 * (dict(key)["cell"] == "many3") for key, values in drawn.items()}
    result = check(_Drawn(low))
    assert result.verdict is Verdict.HOLDS and "many3" in result.comparisons[0].note
