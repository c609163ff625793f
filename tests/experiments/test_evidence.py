import math

import pytest

from decaylab.experiments.evidence import Evidence, Verdict, all_of, any_of, judge, not_testable

HOLDS, FAILS, UNDECIDED, NOT = Verdict.HOLDS, Verdict.FAILS, Verdict.UNDECIDED, Verdict.NOT_TESTABLE


@pytest.mark.parametrize(
    ("low", "high", "claimed", "verdict"),
    [
        (-2, -1, (-math.inf, 0), HOLDS),
        (-2, 0, (-math.inf, 0), UNDECIDED),
        (0.1, 2, (-math.inf, 0), FAILS),
        (-math.inf, math.inf, (-math.inf, 0), UNDECIDED),
        (math.inf, math.inf, (0, math.inf), HOLDS),
        (-0.5, 0.5, (-1, 1), HOLDS),
        (-2, 2, (-1, 1), UNDECIDED),
        (1.5, 2, (-1, 1), FAILS),
    ],
)
def test_an_interval_inside_outside_or_across(low, high, claimed, verdict):
    assert judge(low, high, claimed) is verdict


@pytest.mark.parametrize(
    ("parts", "every", "some"),
    [
        ([HOLDS, HOLDS], HOLDS, HOLDS),
        ([HOLDS, FAILS], FAILS, HOLDS),
        ([HOLDS, UNDECIDED], UNDECIDED, HOLDS),
        ([FAILS, UNDECIDED], FAILS, UNDECIDED),
        ([FAILS, FAILS], FAILS, FAILS),
        ([HOLDS, NOT], NOT, HOLDS),
        ([FAILS, NOT], FAILS, NOT),
        ([UNDECIDED, NOT], NOT, NOT),
    ],
)
def test_combinations(parts, every, some):
    evidence = [Evidence(verdict=v, rule=str(i)) for i, v in enumerate(parts)]
    assert all_of(evidence).verdict is every
    assert any_of(evidence).verdict is some


def test_a_combination_keeps_its_reasons():
    both = all_of([not_testable("a", "no runs"), not_testable("b", "no runs")])
    assert both.reason == "no runs"
    with pytest.raises(ValueError, match="at least one"):
        all_of([])


def test_a_verdict_is_its_own_text():
    assert str(NOT) == "not testable at this budget"
