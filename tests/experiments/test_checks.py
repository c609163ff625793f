import math

import pytest
from tests.support.synthetic import Row, results

from decaylab.experiments import checks
from decaylab.experiments.evidence import Verdict
from decaylab.experiments.quantity import at, final, percent

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
