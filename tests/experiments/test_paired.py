"""Settings compared seed by seed: intervals against scipy, what follows from them, and the sentence."""

import math

import pandas as pd
import pytest
from scipy import stats
from tests.support.synthetic import Row

from decaylab.config.schema import LanguageRun
from decaylab.errors import DecaylabError
from decaylab.experiments.paired import Setting, compare, number, with_interval
from decaylab.experiments.quantity import final
from decaylab.experiments.results import Results
from decaylab.experiments.run_spec import RunSpec

VALUES = {
    "0": [3.50, 3.52, 3.49, 3.53],
    "0.1": [3.48, 3.501, 3.469, 3.511],  # 0.02 lower in each seed
    "0.3": [3.481, 3.499, 3.470, 3.510],
    "1": [3.60, 3.63, 3.58, 3.64],
    "0.03": [3.505, 3.512, 3.495, 3.525],
}


def _results(values, status=None):
    specs, rows, records, settings = [], {}, [], []
    for position, (name, numbers) in enumerate(values.items()):
        runs = {}
        for seed, value in enumerate(numbers):
            spec = RunSpec(config=LanguageRun(seed=1000 * position + seed), labels={"seed": seed, "name": name})
            specs.append(spec)
            runs[seed] = spec.id
            rows[spec.id] = Row(status=(status or {}).get((name, seed), "done"), step=10, total_steps=10)
            if value is not None:
                records.append({"run": spec.id, "step": 10, "key": "val/loss", "value": value})
        settings.append(Setting(name=name, runs=runs))
    frame = pd.DataFrame(records, columns=["run", "step", "key", "value"])
    fetch = lambda keys: frame[frame["key"].isin(keys)]  # noqa: E731
    return Results(specs, rows, fetch, budget="mini"), settings


def _table(values=VALUES, status=None, **options):
    results, settings = _results(values, status)
    return compare(results, final("val/loss"), settings, what="decay.weight_decay", **options)


def test_differences_are_those_of_a_paired_t_test():
    for row in _table().rows[1:]:
        found = stats.ttest_rel(VALUES[row.name], VALUES["0"]).confidence_interval(0.95)
        assert (row.difference.low, row.difference.high) == pytest.approx((found.low, found.high))
        alone = stats.t.interval(0.95, 3, loc=sum(VALUES[row.name]) / 4, scale=stats.sem(VALUES[row.name]))
        assert (row.mean.low, row.mean.high) == pytest.approx(alone)


def test_what_follows_from_the_intervals():
    table = _table()
    assert {row.name: row.standing for row in table.rows} == {
        "0": "baseline", "0.1": "better", "0.3": "better", "1": "worse", "0.03": "not told apart"
    }  # fmt: skip
    assert table.like_the_best == ("0.1", "0.3")
    assert table.sentence == (
        "Final val/loss: 0.1 and 0.3 are better than decay.weight_decay 0, by -0.0198 (-0.0213 to -0.0182) and"
        " -0.0200 (-0.0213 to -0.0187) nats. 1 is worse than decay.weight_decay 0, by 0.103 (0.087 to 0.118) nats."
        " 0.03 cannot be told apart from decay.weight_decay 0 with 4 seeds: -0.001 (-0.011 to 0.010) nats."
        " Among 0.1 and 0.3, which has the lowest mean cannot be told."
    )


def test_high_values_may_be_good_and_another_setting_the_baseline():
    table = _table(highest=True, baseline="0.1")
    standing = {row.name: row.standing for row in table.rows}
    assert standing["0"] == standing["1"] == "better" and standing["0.1"] == "baseline"
    assert table.like_the_best == ("1",)


def test_two_are_alike_only_within_a_margin_named_before():
    table = _table(baseline="0.1", margin=0.01)
    assert {row.name: row.standing for row in table.rows}["0.3"] == "alike"
    assert "0.3 and decay.weight_decay 0.1 are alike within the margin." in table.sentence
    assert {row.name: row.standing for row in _table(baseline="0.1").rows}["0.3"] == "not told apart"


def test_runs_that_diverged_failed_or_are_not_there():
    values = {"0": [3.5, 3.4, 3.6], "10": [math.nan] * 3, "1": [3.7, None, 3.9]}
    status = {("10", seed): "diverged" for seed in range(3)} | {("1", 1): "failed"}
    table = _table(values, status)
    rows = {row.name: row for row in table.rows}
    assert rows["10"].standing == "diverged" and rows["10"].diverged == 3
    assert rows["1"].difference.seeds == (0, 2)  # those that both have
    assert "10 diverged." in table.sentence
    one = _table({"0": [3.5], "1": [3.4]})
    assert one.rows[1].standing == "no answer" and "one seed gives no interval" in one.sentence
    nothing = _table({"0": [None], "1": [None]})
    assert nothing.rows[1].standing == "no answer" and nothing.like_the_best == ()


def test_plain_data_and_the_page_have_the_same_numbers():
    table = _table()
    plain = {row["setting"]: row for row in table.to_dicts()}
    frame = table.frame().set_index("setting")
    assert frame.loc["1", "difference_low"] == plain["1"]["difference"]["low"]
    assert plain["1"]["difference"]["by_seed"]["2"] == pytest.approx(0.09)
    assert "difference" not in plain["0"] and math.isnan(frame.loc["0", "difference"])


def test_mistakes():
    with pytest.raises(DecaylabError, match="two settings"):
        _table({"0": [1.0, 2.0]})
    with pytest.raises(DecaylabError, match=r"'5' is not among the settings: 0, 0\.1"):
        _table(baseline="5")


def test_numbers_have_two_digits_of_their_interval():
    assert number(-0.02134, 0.0012) == "-0.0213" and number(83.4, 14) == "83" and number(-0.0001, 0.5) == "0.00"
    assert number(math.nan) == "-" and number(math.inf) == "inf" and number(3.14159) == "3.142"
    assert with_interval(_table().rows[3].difference) == "0.103 (0.087 to 0.118)"
