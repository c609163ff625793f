import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.support import synthetic
from tests.support.synthetic import Row

from decaylab.experiments.results import Results
from decaylab.experiments.spec import Chart
from decaylab.reporting.aggregate import drawn, thin


def chart(table, **changes):
    fields = {"id": "a", "title": "A", "data": lambda results: table, "x": "step", "color": "wd"}
    return Chart(**{**fields, **changes})


def seeds_table(values, wd=0.1):
    """One row a (seed, step) of an array (seeds, steps)."""
    rows = [(s, step, v) for s, row in enumerate(values) for step, v in enumerate(row)]
    return pd.DataFrame(rows, columns=["seed", "step", "value"]).assign(wd=wd, run=lambda t: t["seed"].astype(str))


def test_mean_and_interval_are_scipys():
    values = np.random.default_rng(0).normal(size=(5, 3))
    table = seeds_table(values)
    points = drawn(chart(table), None)
    assert points["y"].to_numpy() == pytest.approx(values.mean(0))
    low, high = stats.t.interval(0.95, 4, loc=values.mean(0), scale=stats.sem(values, axis=0))
    assert points["low"].to_numpy() == pytest.approx(low) and points["high"].to_numpy() == pytest.approx(high)
    assert set(points["count"]) == {5} and set(points["color"]) == {"0.1"}


def test_one_seed_has_no_interval():
    points = drawn(chart(seeds_table(np.ones((1, 3)))), None)
    assert points["low"].isna().all() and set(points["count"]) == {1}


def test_a_logarithmic_axis_averages_logarithms():
    points = drawn(chart(seeds_table([[1.0], [100.0]]), log_y=True), None)
    assert points["y"][0] == pytest.approx(10.0)
    assert points["low"][0] > 0


def test_values_that_cannot_be_drawn_are_left_out():
    points = drawn(chart(seeds_table([[1.0, np.inf, 3.0], [1.0, np.nan, 5.0]])), None)
    assert list(points["x"]) == [0, 2]
    assert list(drawn(chart(seeds_table([[0.0, 1.0]]), log_y=True), None)["x"]) == [1]
    assert list(drawn(chart(seeds_table([[0.0, 1.0]]), log_x=True), None)["x"]) == [1]


def test_rows_as_they_are():
    points = drawn(chart(seeds_table([[1.0, 2.0], [3.0, 4.0]]), over=None, dash="seed"), None)
    assert len(points) == 4 and set(points["dash"]) == {"0", "1"}


def test_bars_keep_the_seeds():
    points = drawn(chart(seeds_table([[1.0], [3.0]]), kind="bars", x="wd"), None)
    assert points["each"][0] == "1 3"


def test_the_end_of_a_diverged_run_is_marked():
    def change(labels, row):
        return Row(status="diverged", step=100) if (labels["lr"], labels["wd"]) == ("large", "none") else row

    results = synthetic.results(change=change)
    declared = chart(None, data=lambda r: r.metric("test/error"), dash="lr")
    points = drawn(declared, results)
    marked = points[points["ended_early"] > 0]
    assert marked[["color", "dash", "x", "ended_early"]].values.tolist() == [["none", "large", 100, 3]]


def test_no_records_no_points():
    results = synthetic.results(change=lambda labels, row: None)
    assert isinstance(results, Results)
    assert drawn(chart(None, data=lambda r: r.metric("test/error"), panel="lr"), results).empty


@pytest.mark.parametrize("log_x", [False, True])
def test_thinning_keeps_every_spike(log_x):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(1, 20_000))
    spikes = rng.choice(20_000, 40, replace=False)
    values[0, spikes] = 50 + rng.normal(size=40)
    declared = chart(seeds_table(values).assign(step=lambda t: t["step"] + 1), log_x=log_x)
    points = drawn(declared, None)
    kept = thin(points, declared, limit=400)
    assert len(kept) <= 402
    assert kept["y"].max() == points["y"].max() and kept["y"].min() == points["y"].min()
    assert {1, 20_000} <= set(kept["x"])
    assert kept["x"].is_monotonic_increasing
    place = np.log(points["x"]) if log_x else points["x"]
    piece = pd.cut(place, 198, labels=False)  # each piece of the axis keeps its own highest point
    highest = points.groupby(piece)["y"].max()
    assert np.isin(highest, kept["y"]).all()


def test_short_curves_stay_whole():
    declared = chart(seeds_table(np.ones((1, 300))))
    points = drawn(declared, None)
    assert thin(points, declared).equals(points)
