"""Oracles: scipy's exact tests and the published example of Newcombe's interval."""

import math

import pytest
from scipy import stats

from decaylab.experiments.evidence import Verdict
from decaylab.experiments.proportions import _fisher, _newcombe, share_comparison, share_difference


def some(k, n):
    return {seed: seed < k for seed in range(n)}


@pytest.mark.parametrize(("k", "n"), [(0, 3), (3, 3), (1, 3), (2, 7), (9, 12)])
def test_the_interval_of_a_share_is_clopper_and_pearsons(k, n):
    found = share_comparison(some(k, n), (0.5, math.inf), name="diverged")
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="exact")
    assert (found.low / 100, found.high / 100) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("k", "n", "j", "m"), [(3, 3, 0, 3), (2, 3, 0, 3), (5, 5, 1, 5), (1, 4, 3, 5), (0, 3, 0, 3)])
def test_fisher_is_scipys(k, n, j, m):
    expected = stats.fisher_exact([[k, n - k], [j, m - j]], alternative="greater").pvalue
    assert _fisher(k, n, j, m) == pytest.approx(expected)


def test_newcombes_published_example():
    # Newcombe 1998, table II (a), method 10: 56/70 against 48/80 gives 0.2 (0.0524, 0.3339)
    assert _newcombe(56, 70, 48, 80) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(
    ("this", "that", "verdict"),
    [
        (some(3, 3), some(0, 3), Verdict.HOLDS),
        (some(0, 3), some(3, 3), Verdict.FAILS),
        (some(2, 3), some(0, 3), Verdict.UNDECIDED),
        (some(3, 3), some(3, 3), Verdict.UNDECIDED),
        (some(2, 2), some(0, 2), Verdict.NOT_TESTABLE),
        ({**some(3, 3), 3: None}, some(0, 4), Verdict.NOT_TESTABLE),
    ],
)
def test_verdicts_of_divergence(this, that, verdict):
    assert share_difference(this, that, name="diverged").verdict is verdict


def test_three_seeds_cannot_prove_a_share():
    assert share_comparison(some(3, 3), (0.5, math.inf), name="diverged").verdict is Verdict.UNDECIDED
    assert share_comparison(some(6, 6), (0.5, math.inf), name="diverged").verdict is Verdict.HOLDS
    assert share_comparison({0: True, 1: None, 2: None}, (0.5, 1), name="x").verdict is Verdict.NOT_TESTABLE
