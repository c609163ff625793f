import math

import numpy as np
import pytest
from tests.support.synthetic import Row, results

from decaylab.experiments import checks
from decaylab.experiments.evidence import Verdict
from decaylab.experiments.quantity import Quantity, at, final, percent

WITH, WITHOUT = {"lr": "large", "wd": "with"}, {"lr": "large", "wd": "none"}
SMALL, SMALL_WITHOUT = {"lr": "small", "wd": "with"}, {"lr": "small", "wd": "none"}
ERROR = final("test/error")


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (checks.lower(ERROR, this=WITH, than=WITHOUT), Verdict.HOLDS),
        (checks.higher(ERROR, this=WITH, than=WITHOUT), Verdict.FAILS),
        (checks.lower(ERROR, this=WITH, than=WITHOUT, by=5), Verdict.FAILS),
        (checks.equal(ERROR, this=SMALL, that=SMALL_WITHOUT, margin=1), Verdict.HOLDS),
        (checks.lower(ERROR - at("test/error", 0.5), this=WITH, than=WITHOUT), Verdict.HOLDS),
        (checks.inside(final("train/loss"), where=WITHOUT, low=0.9, high=1.1), Verdict.HOLDS),
        (checks.trend(ERROR, over="lr_value", expect="falling", where={"wd": "with"}), Verdict.HOLDS),
        (checks.trend(ERROR, over="lr_value", expect="rising", where={"wd": "with"}, scale="rank"), Verdict.FAILS),
        (checks.diverges_more(this=WITH, than=WITHOUT), Verdict.UNDECIDED),
        (checks.diverged_share(where=WITH, high=0.9), Verdict.HOLDS),
    ],
)
def test_known_answers(check, verdict):
    evidence = check(results())
    assert evidence.verdict is verdict
    assert evidence.rule and check.rule
    assert all(c.seeds == (0, 1, 2) for c in evidence.comparisons)


def test_units_and_names_are_for_readers():
    comparison = checks.lower(ERROR, this=WITH, than=WITHOUT)(results()).comparisons[0]
    assert comparison.name == "final test/error: WD with minus WD none"
    assert comparison.full_name == "final test/error: WD with minus WD none (LR large)"
    assert comparison.unit == "percentage points"
    assert comparison.estimate == pytest.approx(-2, abs=0.3)


def test_one_missing_run_leaves_a_claim_untested():
    going = lambda labels, row: Row(status="running", step=190) if dict(labels)["seed"] == 1 else row  # noqa: E731
    evidence = checks.lower(ERROR, this=WITH, than=WITHOUT)(results(change=going))
    assert evidence.verdict is Verdict.NOT_TESTABLE
    assert "2 of 3 seeds" in evidence.reason


def test_divergence_is_said_beside_the_numbers():
    lost = lambda labels, row: Row(status="diverged", step=50) if labels["wd"] == "none" else row  # noqa: E731
    found = results(change=lost)
    evidence = checks.lower(ERROR, this=WITH, than=WITHOUT)(found)
    assert evidence.verdict is Verdict.HOLDS  # 100 % error on the other side
    assert "3 of 3 runs with LR large, WD none diverged" in evidence.comparisons[0].note
    assert checks.diverges_more(this=WITHOUT, than=WITH)(found).verdict is Verdict.HOLDS
    loss = checks.lower(final("train/loss"), this=WITH, than=WITHOUT)(found)
    assert loss.verdict is Verdict.UNDECIDED  # infinite differences of three seeds are below what a sign test can show


@pytest.mark.parametrize(
    "quantity",
    [ERROR, final("train/loss"), percent(final("train/loss")), ERROR - at("test/error", 0.2)],
)
def test_two_settings_that_always_diverge_are_not_equal(quantity):
    lost = lambda labels, row: Row(status="diverged", step=50)  # noqa: E731
    evidence = checks.equal(quantity, this=WITH, that=WITHOUT, margin=1)(results(change=lost))
    assert evidence.verdict is Verdict.NOT_TESTABLE
    assert "every run of both settings diverged" in evidence.reason


def test_a_change_that_diverged_runs_did_not_live_to_see_is_not_tested():
    lost = lambda labels, row: Row(status="diverged", step=50) if labels["wd"] == "none" else row  # noqa: E731
    check = checks.lower(ERROR - at("test/error", 0.5), this=WITH, than=WITHOUT)
    assert check(results(change=lost)).verdict is Verdict.NOT_TESTABLE


@pytest.mark.parametrize("last", [math.nan, math.inf, 100.0])
def test_a_curve_that_diverges_above_another_does_not_cross_it(last):
    lost = lambda labels, row: Row(status="diverged", step=180) if labels["wd"] == "none" else row  # noqa: E731
    found = results(change=lost, noise=0.0)
    frame = found.metric("train/loss")
    frame.loc[(frame["wd"] == "none") & (frame["step"] == 180), "value"] = last
    found._cache["train/loss"] = frame
    evidence = checks.crosses("train/loss", this=WITHOUT, than=WITH, between=(0.0, 1.0))(found)
    assert evidence.verdict is Verdict.FAILS


def test_curves_that_cross_and_curves_that_do_not():
    found = results(noise=0.0)
    crossing = checks.crosses("test/error", this=SMALL, than=WITH, between=(0.2, 0.9))(found)
    assert crossing.verdict is Verdict.FAILS  # the small rate is above all the time
    assert "do not cross for seeds 0, 1, 2" in crossing.comparisons[0].note

    def bend(labels, row):
        return row

    found = results(change=bend, noise=0.0)
    frame = found.metric("train/loss")
    is_with = (frame["wd"] == "with") & (frame["lr"] == "large")
    frame.loc[is_with, "value"] = 1.55 - frame.loc[is_with, "fraction"] * 0.25
    found._cache["train/loss"] = frame
    crossing = checks.crosses("train/loss", this=WITHOUT, than=WITH, between=(0.5, 0.7))(found)
    assert crossing.verdict is Verdict.HOLDS
    assert crossing.comparisons[0].estimate == pytest.approx(60.0)


def test_interior_best_needs_all_runs():
    check = checks.interior_best(ERROR, over="lr_value", where={"wd": "with"})
    going = lambda labels, row: Row(status="running", step=190) if labels["seed"] == 1 else row  # noqa: E731
    assert check(results(change=going)).verdict is Verdict.NOT_TESTABLE


def test_combined_checks():
    yes, no = checks.lower(ERROR, this=WITH, than=WITHOUT), checks.higher(ERROR, this=WITH, than=WITHOUT)
    assert checks.all_of(yes, yes)(results()).verdict is Verdict.HOLDS
    assert checks.all_of(yes, no)(results()).verdict is Verdict.FAILS
    assert checks.any_of(yes, no)(results()).verdict is Verdict.HOLDS
    assert len(checks.all_of(yes, no)(results()).comparisons) == 2


class _Drawn:
    """Results in which a quantity is what was drawn for each side and seed."""

    def __init__(self, sides):
        self.sides = sides

    def by_seed(self, where):
        return {seed: (where["side"], seed) for seed in range(len(self.sides[where["side"]]))}

    def ended(self, run):
        return True

    def diverged(self, run):
        return False

    def runs_with(self, where):
        return []


DRAWN = Quantity(name="drawn", unit="", read=lambda results, run: float(results.sides[run[0]][run[1]]))


def _rates(check, gap, repeats=2500, seeds=6):
    """Return how often a check holds and fails where the true difference is ``gap`` and its spread 1."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(repeats):
        base = rng.normal(0, 3, seeds)
        found.append(check(_Drawn({"a": base + rng.normal(gap, 1, seeds), "b": base})).verdict)
    return found.count(Verdict.HOLDS) / repeats, found.count(Verdict.FAILS) / repeats


A, B = {"side": "a"}, {"side": "b"}


def test_error_rates_of_equivalence():
    """At the margin each one-sided test is wrong at its level: 5 % for the usual form, 2.5 % for ``equal``."""
    usual = checks.equivalent(DRAWN, this=A, that=B, margin=4.0)
    strict = checks.equal(DRAWN, this=A, that=B, margin=4.0)
    assert usual(_Drawn({"a": np.zeros(6) + 1e-3 * np.arange(6), "b": np.zeros(6)})).comparisons[0].confidence == 0.9
    for gap in (4.0, -4.0):
        assert _rates(usual, gap) == pytest.approx((0.05, 0.05), abs=0.013)
        assert _rates(strict, gap) == pytest.approx((0.025, 0.025), abs=0.01)
    holds, fails = _rates(usual, 0.0, repeats=300)
    assert holds > 0.99 and fails == 0.0
    assert "5 %" in usual.rule


def test_error_rates_of_non_inferiority():
    check = checks.not_worse(DRAWN, this=A, than=B, margin=2.0)
    assert _rates(check, 2.0) == pytest.approx((0.025, 0.025), abs=0.01)
    assert _rates(check, -9.0, repeats=50) == (1.0, 0.0)  # far better is not worse
    assert _rates(check, 9.0, repeats=50) == (0.0, 1.0)
    high = checks.not_worse(DRAWN, this=A, than=B, margin=2.0, lower_is_better=False)
    assert _rates(high, -2.0) == pytest.approx((0.025, 0.025), abs=0.01)
    assert _rates(high, 9.0, repeats=50) == (1.0, 0.0)


def test_all_of_fails_too_often_unless_corrected():
    """Four parts, each true by nothing: one of them fails in 1 - 0.975^4 of the pages, and in 2.5 % when corrected."""
    rng = np.random.default_rng(0)
    parts = [checks.lower(DRAWN, this={"side": f"a{i}"}, than=B) for i in range(4)]
    plain, corrected = checks.all_of(*parts), checks.all_of(*parts, corrected=True)
    fails = {"plain": 0, "corrected": 0}
    for _ in range(2000):
        drawn = _Drawn({"b": np.zeros(6), **{f"a{i}": rng.normal(0, 1, 6) for i in range(4)}})
        fails["plain"] += plain(drawn).verdict is Verdict.FAILS
        found = corrected(drawn)
        fails["corrected"] += found.verdict is Verdict.FAILS
        assert found.verdict is not Verdict.HOLDS or plain(drawn).verdict is Verdict.HOLDS
        assert found.p_holds == max(check(drawn).p_holds for check in parts)
    assert fails["plain"] / 2000 == pytest.approx(1 - 0.975**4, abs=0.02)
    assert fails["corrected"] / 2000 == pytest.approx(0.025, abs=0.01)
    assert "0.05 / 4" in corrected(drawn).rule


def test_one_enough_is_corrected_for_its_chances():
    drawn = _Drawn({"b": np.zeros(6), "a": np.array([-1.0, 0.5, -2.0, 0.2, -0.1, -0.9]), "c": np.ones(6)})
    first, second = (checks.lower(DRAWN, this={"side": side}, than=B) for side in ("a", "c"))
    found = checks.any_of(first, second)(drawn)
    assert found.p_holds == pytest.approx(2 * first(drawn).p_holds) and found.level == pytest.approx(0.05)
