"""The table of completions against numbers worked out by hand with scipy."""

import math

import pandas as pd
import pytest
from scipy import stats
from tests.support.synthetic import Row

from decaylab.config.schema import LanguageRun
from decaylab.experiments.completions import completions
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import final
from decaylab.experiments.results import Results

LOSSES = {0.0: (2.0, 2.25, 1.75), 0.1: (1.5, math.nan, 1.0), 0.2: (3.0, 3.0, 3.0), 0.3: (9.0, 9.0, 9.0)}


def _results(status, text):
    """``status(wd, seed)`` and ``text(wd, seed)`` say how a run ended and what it said."""
    specs = grid(LanguageRun(), {"decay.weight_decay": list(LOSSES), "seed": [0, 1, 2]})
    rows, records = {}, []
    for spec in specs:
        wd, seed = spec.labels["wd"], spec.labels["seed"]
        said = text(wd, seed)
        rows[spec.id] = Row(status=status(wd, seed), summary={} if said is None else {"completion": said})
        records.append((spec.id, 200, "val/loss", LOSSES[wd][seed]))
    table = pd.DataFrame(records, columns=["run", "step", "key", "value"])
    return Results(specs, rows, lambda keys: table[table["key"].isin(keys)], budget="mini")


def test_one_row_a_setting_with_the_interval_of_the_runs_that_are_done():
    status = {(0.1, 1): "diverged", (0.2, 1): "running", (0.2, 2): "running"}
    results = _results(
        lambda wd, seed: "waiting" if wd == 0.3 else status.get((wd, seed), "done"),
        lambda wd, seed: None if status.get((wd, seed)) or (wd, seed) == (0.0, 0) else f"{wd} said {seed}\n",
    )
    table = completions(["wd"], final("val/loss"))(results)
    assert table["wd"].tolist() == [0.0, 0.1, 0.2]  # nobody of 0.3 has ended
    assert table["seeds"].tolist() == [3, 2, 1]
    assert table["diverged"].tolist() == [0, 1, 0]
    assert table["value"].tolist() == [2.0, 1.25, 3.0]
    assert table["seed"].tolist() == [1, 0, 0]
    assert table["completion"].tolist() == ["0.0 said 1\n", "0.1 said 0\n", "0.2 said 0\n"]
    for row, values in ((0, [2.0, 2.25, 1.75]), (1, [1.5, 1.0])):
        low, high = stats.t.interval(0.95, len(values) - 1, loc=table["value"][row], scale=stats.sem(values))
        assert table["value_low"][row] == pytest.approx(low) and table["value_high"][row] == pytest.approx(high)
    assert math.isnan(table["value_low"][2]) and math.isnan(table["value_high"][2])


def test_a_setting_of_which_every_run_diverged_is_there():
    table = completions(["wd"], final("val/loss"))(_results(lambda wd, seed: "diverged", lambda wd, seed: None))
    assert table["diverged"].tolist() == [3, 3, 3, 3]
    assert table["value"].isna().all() and (table["completion"] == "").all()


def test_labels_that_leave_something_open_are_refused():
    results = _results(lambda wd, seed: "done", lambda wd, seed: "x")
    with pytest.raises(ValueError, match="leave \\['wd'"):
        completions([], final("val/loss"))(results)


def test_before_any_run_there_is_an_empty_table():
    table = completions(["wd"], final("val/loss"))(_results(lambda wd, seed: "waiting", lambda wd, seed: None))
    assert table.empty and {"wd", "value", "completion"} <= set(table.columns)
