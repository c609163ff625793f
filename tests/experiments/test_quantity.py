import math

import pytest
from tests.support.synthetic import Row, results

from decaylab.experiments.quantity import at, final, log10, log_slope, lowest, mean_over, slope_over
from decaylab.experiments.results import Curve

WITH = {"lr": "large", "wd": "with"}


def test_errors_are_percent_and_losses_nats():
    found = results(noise=0.0)
    assert final("test/error").by_seed(found, WITH)[0] == pytest.approx(13.0, abs=0.02)
    assert final("test/error").unit == "%"
    assert final("train/loss").by_seed(found, WITH) == pytest.approx({0: 0.8, 1: 0.8, 2: 0.8})


def test_reductions_along_the_run():
    found = results(noise=0.0)
    loss = {"lr": "small", "wd": "none"}
    assert at("train/loss", 0.5).by_seed(found, loss)[0] == pytest.approx(1.5)
    assert mean_over("train/loss", 0.5, 1.0).by_seed(found, loss)[0] == pytest.approx(1.25)
    assert slope_over("train/loss", 0.2, 0.9).by_seed(found, loss)[0] == pytest.approx(-1.0)
    assert lowest("train/loss").by_seed(found, loss)[0] == pytest.approx(1.0)


def test_quantities_subtract_and_divide_within_a_run():
    found = results(noise=0.0)
    change = final("test/error") - at("test/error", 0.5)
    assert change.unit == "percentage points"
    assert change.by_seed(found, WITH)[0] == pytest.approx(-2.5, abs=0.1)
    ratio = final("train/loss") / at("train/loss", 0.0)
    assert ratio.by_seed(found, WITH)[0] == pytest.approx(0.4)


def test_a_diverged_run_counts_as_the_worst():
    lost = lambda labels, row: Row(status="diverged", step=50) if labels["seed"] == 1 else row  # noqa: E731
    found = results(change=lost)
    assert final("test/error").by_seed(found, WITH)[1] == 100.0
    assert final("train/loss").by_seed(found, WITH)[1] == math.inf
    assert final("train/loss", diverged=9.0).by_seed(found, WITH)[1] == 9.0
    assert math.isnan(final("epoch").by_seed(found, WITH)[1])
    assert lowest("train/loss").by_seed(found, WITH)[1] == pytest.approx(1.7)


def test_what_a_run_recorded_before_it_diverged_is_read_as_it_is():
    lost = lambda labels, row: Row(status="diverged", step=110)  # noqa: E731
    found, whole = results(change=lost, noise=0.0), results(noise=0.0)
    early, late = at("train/loss", 0.5), at("train/loss", 0.6)
    assert early.by_seed(found, WITH) == early.by_seed(whole, WITH)
    assert late.by_seed(found, WITH)[0] == math.inf
    early, late = mean_over("train/loss", 0.1, 0.5), mean_over("train/loss", 0.1, 0.6)
    assert early.by_seed(found, WITH) == early.by_seed(whole, WITH)
    assert late.by_seed(found, WITH)[0] == math.inf
    assert slope_over("train/loss", 0.0, 0.4).by_seed(found, WITH)[0] == pytest.approx(-1.2)
    assert slope_over("train/loss", 0.0, 0.6).by_seed(found, WITH)[0] == math.inf


def test_a_run_that_diverged_where_it_is_looked_at_counts_as_the_worst():
    lost = lambda labels, row: Row(status="diverged", step=100)  # noqa: E731
    found = results(change=lost, noise=0.0)  # the evaluation of that step is not made any more
    assert at("train/loss", 0.5).by_seed(found, WITH)[0] == math.inf
    assert mean_over("train/loss", 0.1, 0.5).by_seed(found, WITH)[0] == math.inf
    last = lambda labels, row: Row(status="diverged")  # noqa: E731
    assert at("train/loss", 1.0).by_seed(results(change=last), WITH)[0] == math.inf


@pytest.mark.parametrize("key", ["train/loss", "test/error"])
def test_nothing_is_left_of_a_difference_of_two_numbers_that_are_both_lost(key):
    lost = lambda labels, row: Row(status="diverged", step=50)  # noqa: E731
    found = results(change=lost)
    assert math.isnan((final(key) - at(key, 0.5)).by_seed(found, WITH)[0])
    assert math.isnan((final(key) / at(key, 0.5)).by_seed(found, WITH)[0])
    assert (final(key) - at(key, 0.2)).by_seed(found, WITH)[0] > 70


def test_a_run_that_has_not_ended_has_no_number():
    going = lambda labels, row: Row(status="running", step=190) if labels["seed"] == 1 else row  # noqa: E731
    assert math.isnan(final("test/error").by_seed(results(change=going), WITH)[1])
    assert math.isnan(final("no/such/key").by_seed(results(), WITH)[0])


def test_scale_free_products_and_their_slopes():
    """The norm halves and the trace grows as 1 / norm^2 while the function stays: the scale-free trace has no slope."""
    norm = [4.0 * 2 ** (-i / 10) for i in range(21)]
    curves = {"weights/norm": norm, "hessian/trace": [7.0 / n**2 for n in norm], "jacobian": [3.0 / n for n in norm]}

    class One:
        def curve(self, run, key):
            return Curve(list(range(21)), curves[key], 20)

        def diverged(self, run):
            return False

    free = log_slope({"weights/norm": 2, "hessian/trace": 1}, 0.0, 1.0, name="norm^2 x trace")
    assert free.read(One(), "r") == pytest.approx(0.0, abs=1e-12)
    raw = log_slope({"hessian/trace": 1}, 0.0, 1.0, name="trace")
    assert raw.read(One(), "r") == pytest.approx(2 * 2 * math.log(2), rel=1e-12)  # 2^(i/5) over 20 steps
    assert log_slope({"weights/norm": 1, "jacobian": 1}, 0.5, 1.0, name="J").read(One(), "r") == pytest.approx(0.0)
    product = final("weights/norm") * final("weights/norm") * final("hessian/trace")
    assert product.read(One(), "r") == pytest.approx(7.0) and "times" in product.name
    assert log10(final("hessian/trace")).read(One(), "r") == pytest.approx(math.log10(7.0))
