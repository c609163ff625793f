"""Oracles: scipy's own tests, hand-computed examples, and simulation of the coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from decaylab.experiments import statistics
from decaylab.experiments.evidence import Verdict
from decaylab.experiments.statistics import (
    crossing,
    hedges_g,
    interior_comparisons,
    mean_comparison,
    median_interval,
    paired_difference,
    slope,
    t_interval,
)

BELOW, ABOVE = (-math.inf, 0.0), (0.0, math.inf)
samples = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)


@given(samples)
def test_t_interval_is_scipys(values):
    mean, low, high = t_interval(values)
    spread = np.std(values, ddof=1) / math.sqrt(len(values))
    expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=spread) if spread > 1e-9 else None
    assert mean == pytest.approx(np.mean(values), abs=1e-9)
    if expected:
        assert (low, high) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_t_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(1.5, 2.0, (4000, 4))
    covered = sum(low < 1.5 < high for _, low, high in map(t_interval, draws))
    assert 0.94 < covered / 4000 < 0.96


def test_one_value_says_nothing_about_the_spread():
    assert t_interval([2.0]) == (2.0, -math.inf, math.inf)


@pytest.mark.parametrize("n", [2, 5, 6, 7, 8, 9, 12, 20])
def test_median_interval_inverts_the_sign_test(n):
    values = list(range(n))
    median, low, high = median_interval(values)
    assert median == np.median(values)
    expected = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert (low, high) == tuple(
        -math.inf if math.isnan(e) and i == 0 else math.inf if math.isnan(e) else e for i, e in enumerate(expected)
    )


def test_median_interval_covers_skewed_values():
    draws = np.random.default_rng(1).exponential(1.0, (3000, 8))
    covered = sum(low < math.log(2) < high for _, low, high in map(median_interval, draws.tolist()))
    assert covered / 3000 > 0.94


def test_hedges_g_by_hand():
    # mean 2, sd 1, J(2) = 1/sqrt(pi): Gamma(1) / (1 * Gamma(1/2))
    assert hedges_g([1.0, 2.0, 3.0]) == pytest.approx(2 / math.sqrt(math.pi))


def test_hedges_g_is_unbiased():
    draws = np.random.default_rng(2).normal(0.8, 1.0, (20000, 5))
    assert np.mean([hedges_g(row) for row in draws.tolist()]) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 1.0, 1.0], [1.0, math.inf, 2.0]])
def test_no_effect_size_where_it_has_no_meaning(values):
    assert hedges_g(values) is None


def test_paired_difference_is_the_paired_t_test():
    this, that = {0: 1.82, 1: 1.81, 2: 1.83}, {0: 1.86, 1: 1.85, 2: 1.88}
    found = paired_difference(this, that, BELOW, name="loss")
    expected = stats.ttest_rel(list(this.values()), list(that.values())).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.verdict is Verdict.HOLDS
    assert found.values == pytest.approx((-0.04, -0.04, -0.05))


@pytest.mark.parametrize(
    ("differences", "claimed", "verdict"),
    [
        ([-3.0, -3.1, -2.9], BELOW, Verdict.HOLDS),
        ([-3.0, -3.1, -2.9], ABOVE, Verdict.FAILS),
        ([-3.0, 1.0, 2.0], BELOW, Verdict.UNDECIDED),
        ([0.01, -0.01, 0.0], (-0.1, 0.1), Verdict.HOLDS),
        ([0.5, 0.51, 0.49], (-0.1, 0.1), Verdict.FAILS),
        ([0.1, 0.05, 0.15], (-0.1, 0.1), Verdict.UNDECIDED),
        ([0.0, 0.0, 0.0], BELOW, Verdict.UNDECIDED),
        ([-3.0, -3.1], BELOW, Verdict.NOT_TESTABLE),
        ([-3.0, -3.1, -2.9, math.nan], BELOW, Verdict.NOT_TESTABLE),
        ([-math.inf, -math.inf, -1.0], BELOW, Verdict.UNDECIDED),
        ([-math.inf] * 6, BELOW, Verdict.HOLDS),
        ([-math.inf] * 5 + [-1.0], BELOW, Verdict.HOLDS),
        ([-math.inf] * 5 + [1.0], BELOW, Verdict.UNDECIDED),
    ],
)
def test_verdicts(differences, claimed, verdict):
    assert mean_comparison(dict(enumerate(differences)), claimed, name="x").verdict is verdict


def test_under_no_effect_a_claim_rarely_holds():
    draws = np.random.default_rng(3).normal(0.0, 1.0, (4000, 3))
    held = sum(mean_comparison(dict(enumerate(r)), BELOW, name="x").verdict is Verdict.HOLDS for r in draws.tolist())
    assert 0.018 < held / 4000 < 0.032  # one side of a 95 % interval


def test_two_diverged_runs_of_a_seed_do_not_differ():
    found = paired_difference({0: math.inf, 1: 1.0}, {0: math.inf, 1: 2.0}, BELOW, name="loss")
    assert found.values == (0.0, -1.0)


def test_seeds_must_be_paired():
    with pytest.raises(ValueError, match=r"unpaired seeds \[2\]"):
        paired_difference({0: 1.0, 2: 1.0}, {0: 1.0}, BELOW, name="loss")


def test_slope_is_scipys():
    x, y = np.arange(9.0), np.random.default_rng(4).normal(size=9)
    assert slope(x.tolist(), y.tolist()) == pytest.approx(stats.linregress(x, y).slope)
    assert math.isnan(slope([1.0], [1.0])) and math.isnan(slope([1.0, 1.0], [1.0, 2.0]))


def test_crossing_of_straight_lines_is_exact():
    x = [i / 10 for i in range(11)]
    assert crossing(x, [0.62 - v for v in x]) == pytest.approx(0.62)


def test_noise_does_not_move_the_crossing_to_a_chance_change_of_sign():
    x = np.linspace(0, 1, 201)
    noise = np.random.default_rng(5).normal(0, 0.1, (200, 201))
    found = np.array([crossing(x.tolist(), (0.6 - x + row).tolist()) for row in noise])
    assert abs(found.mean() - 0.6) < 0.01
    assert found.std() < 0.06
    first = np.array([x[np.argmax(0.6 - x + row < 0)] for row in noise])
    assert abs(first.mean() - 0.6) > 0.1  # what the obvious estimate would do


def test_curves_that_never_cross_say_so_with_an_end():
    x = [0.0, 0.5, 1.0]
    assert crossing(x, [1.0, 1.0, 1.0]) == 1.0
    assert crossing(x, [-1.0, -1.0, -1.0]) == 0.0
    assert math.isnan(crossing([0.0], [1.0]))


def test_interior_optimum_of_a_u():
    rng = np.random.default_rng(6)
    table = {s: {lr: (math.log10(lr) + 2) ** 2 + rng.normal(0, 0.05) for lr in (1e-3, 1e-2, 1e-1)} for s in range(3)}
    first, last = interior_comparisons(table, name="error")
    assert first.verdict is last.verdict is Verdict.HOLDS
    assert first.estimate == pytest.approx(-1, abs=0.2)


def test_choosing_the_best_interior_setting_does_not_flatter_it():
    rng = np.random.default_rng(7)
    held, estimates = 0, []
    for _ in range(600):
        flat = {s: dict(enumerate(rng.normal(0, 1, 8).tolist())) for s in range(3)}
        pair = interior_comparisons(flat, name="error")
        estimates.append(pair[0].estimate)
        held += all(c.verdict is Verdict.HOLDS for c in pair)
    assert held / 600 < 0.025
    assert abs(np.mean(estimates)) < 0.08  # picking on the same seeds would be at about -0.7


def test_an_interior_needs_three_settings():
    with pytest.raises(ValueError, match="three settings"):
        interior_comparisons({0: {1.0: 1.0, 2.0: 1.0}}, name="error")


def test_regions_in_words():
    assert statistics.in_words(BELOW) == "below 0"
    assert statistics.in_words((0.5, math.inf), "%") == "above 0.5 %"
    assert statistics.in_words((-0.1, 0.1), "nats") == "between -0.1 and 0.1 nats"


@given(samples, st.floats(-10, 10))
def test_p_values_are_scipys(values, edge):
    if np.std(values) < 1e-6:
        return
    for region, alternative in (((-math.inf, edge), "less"), ((edge, math.inf), "greater")):
        expected = stats.ttest_1samp(values, edge, alternative=alternative).pvalue
        assert statistics.p_value(values, region) == pytest.approx(expected, abs=1e-9)


@given(samples, st.floats(-10, 10), st.floats(0.1, 10))
def test_verdict_and_p_value_agree(values, low, width):
    found = mean_comparison(dict(enumerate(values)), (low, low + width), name="", confidence=0.9)
    if len(values) >= 3:
        assert (found.verdict is Verdict.HOLDS) == (found.p_holds < found.level - 1e-12) or (
            abs(found.p_holds - found.level) < 1e-9
        )
        assert (found.verdict is Verdict.FAILS) == (found.p_fails < found.level - 1e-12) or (
            abs(found.p_fails - found.level) < 1e-9
        )
    assert found.level == pytest.approx(0.05)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_the_sign_test_where_values_are_infinite(lost):
    values = [math.inf] * max(lost, 1) + [-1.0] * (12 - max(lost, 1))
    found = mean_comparison(dict(enumerate(values)), BELOW, name="")
    assert found.p_holds == pytest.approx(stats.binomtest(max(lost, 1), 12, alternative="less").pvalue)
    assert (found.verdict is Verdict.HOLDS) == (found.p_holds < 0.025)


def test_extreme_regions():
    assert statistics.p_value([1.0, 1.0], (0.0, math.inf)) == 0.0
    assert statistics.p_value([1.0, 1.0], (2.0, math.inf)) == 1.0
    assert statistics.p_value([1.0], BELOW) == statistics.p_value([1.0, math.nan], BELOW) == 1.0
    assert statistics.p_value([1.0, 2.0], (-math.inf, -math.inf)) == 1.0
