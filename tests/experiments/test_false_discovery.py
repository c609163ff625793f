"""Oracles: scipy's adjustment, and the false-discovery rate and the number of false holds in simulated pages."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from decaylab.experiments import evidence
from decaylab.experiments.evidence import Verdict
from decaylab.experiments.false_discovery import benjamini_hochberg, multiplicity
from decaylab.experiments.statistics import mean_comparison

BELOW = (-math.inf, 0.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_adjustment_is_scipys(values):
    assert benjamini_hochberg(values) == pytest.approx(list(stats.false_discovery_control(values)), abs=1e-12)


def _page(rng, true, false):
    """Claims that a mean of five values lies below 0: true ones with a mean of -3, false ones with a mean of 0."""
    draws = {("true", i): rng.normal(-3, 1, 5) for i in range(true)}
    draws |= {("false", i): rng.normal(0, 1, 5) for i in range(false)}
    return {
        key: evidence.from_comparison(mean_comparison(dict(enumerate(v)), BELOW, name="")) for key, v in draws.items()
    }


def test_the_rates_in_simulated_pages():
    rng = np.random.default_rng(0)
    shares, false_holds = [], []
    for _ in range(600):
        found = multiplicity(_page(rng, true=5, false=20))
        wrong = sum(kind == "false" for kind, _ in found.surviving)
        shares.append(wrong / max(len(found.surviving), 1))
        false_holds.append(sum(kind == "false" for kind, _ in (*found.surviving, *found.lost)))
        assert found.tested == 25 and found.expected_false == pytest.approx(25 * 0.025)
    # false claims at their boundary: 20/25 of the rate and of the expected number
    assert np.mean(shares) == pytest.approx(0.05 * 20 / 25, abs=0.015)
    assert np.mean(false_holds) == pytest.approx(20 * 0.025, abs=0.1)


def test_what_was_not_tested_does_not_count():
    page = {
        "a": evidence.from_comparison(mean_comparison(dict(enumerate([-1.0, -1.1, -0.9])), BELOW, name="")),
        "b": evidence.not_testable("", "no runs"),
    }
    found = multiplicity(page)
    assert (found.tested, found.holding, found.surviving) == (1, 1, ("a",)) and "1 of the 1" in found.sentence
    assert multiplicity({"b": page["b"]}).sentence == ""


def test_a_weak_hold_among_many_is_named():
    weak = evidence.Evidence(verdict=Verdict.HOLDS, rule="", p_holds=0.02)
    none = {i: evidence.Evidence(verdict=Verdict.UNDECIDED, rule="", p_holds=0.5) for i in range(9)}
    assert multiplicity({"weak": weak, **none}).lost == ("weak",)
    assert multiplicity({"weak": weak}).lost == ()
    fails = evidence.Evidence(verdict=Verdict.FAILS, rule="", p_holds=1.0)
    assert "None holds" in multiplicity({"no": fails}).sentence
