"""What recipes say of the searches behind them is in the searches' tables, and the script still makes those tables."""

import runpy
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from decaylab import studies
from decaylab.store.records import RunRow

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "examples" / "search_language.py"))
NUMBERS = {"diverged", "spikes that stay", "mean", "lowest", "highest", "minus no decay"}


def _read(file):
    return pd.read_csv(file, dtype={"seeds": str, "clip": str})


def _table(name):
    return _read(ROOT / "results" / "searches" / f"{name}.csv")


def _row(table, **settings):
    found = table
    for key, value in settings.items():
        found = found[found[key] == value]
    assert len(found) == 1, settings
    return found.iloc[0]


def _recipe(name):
    return studies.get(name).recipe["mini"]


def _row_of(run, loss, status="done"):
    return RunRow(
        **{f: None for f in RunRow.__dataclass_fields__}
        | {"id": run, "status": status, "summary": {"train/loss": loss}}
    )


@pytest.mark.parametrize("name", SCRIPT["SEARCHES"])
def test_the_tables_are_those_of_the_script(name):
    specs = list(SCRIPT["SEARCHES"][name]())
    made = SCRIPT["table"](specs, {spec.id: _row_of(spec.id, 1.0) for spec in specs})
    made, kept = _read(StringIO(made.to_csv(index=False, float_format=SCRIPT["DIGITS"]))), _table(name)
    settings = [column for column in kept.columns if column not in NUMBERS]
    assert [column for column in made.columns if column not in NUMBERS] == settings
    assert made[settings].equals(kept[settings])


@pytest.mark.parametrize("name", ["fig5", "fig15", "fig16", "fig20"])
def test_searches_leave_the_seeds_of_the_figure_alone(name):
    seeds = {spec.labels["seed"] for spec in SCRIPT["SEARCHES"][name]()}
    assert not seeds & set(studies.get(name).seeds["mini"])


def test_differences_are_paired_and_the_diverged_left_out():
    specs = [s for s in SCRIPT["fig16"]() if s.labels["lr"] == 0.3]
    losses = dict(zip((s.id for s in specs), (2.0, 3.0, 4.0, 1.5, 3.25, 9.0, 1.0, 1.0, 1.0), strict=True))
    rows = {run: _row_of(run, loss, "diverged" if loss == 9.0 else "done") for run, loss in losses.items()}
    table = SCRIPT["table"](specs, rows)
    assert table["diverged"].tolist() == [0, 1, 0]
    assert table["mean"].tolist() == [3.0, 2.375, 1.0]
    assert table["minus no decay"].tolist()[1:] == ["-0.500 +0.250", "-1.000 -2.000 -3.000"]


def test_fig7_says_what_its_table_says():
    table, recipe = _table("fig7"), _recipe("fig7")
    low = table[table["lr"] < 1]
    assert len(low) == 8 and not low["diverged"].any()

    def failed(precision, wd, clip="1"):
        row = _row(table, lr=1.0, precision=precision, wd=wd, clip=clip, ends="when it diverges")
        return f"{row['diverged'] or 'none'} of {len(row['seeds'].split())}"

    assert f"at LR 1 bfloat16 does in {failed('bfloat16', 0.0)}" in recipe
    assert f"float32 in {failed('float32', 0.0)}" in recipe
    assert f"Without clipping {failed('bfloat16', 0.0, 'none')} did" in recipe
    assert f"decay 0.01 failed in {failed('bfloat16', 0.01)} seeds and 0.03 in {failed('bfloat16', 0.03)}" in recipe
    assert f"0.1 in {failed('bfloat16', 0.1)} and 0.3 in {failed('bfloat16', 0.3)}" in recipe
    goes_on = table[table["ends"] == "at step 600"]
    none, some = goes_on[goes_on["wd"] == 0.0], goes_on[goes_on["wd"] > 0.0]
    assert f"without decay to {none['lowest'].min():.2f} to {none['highest'].max():.2f} nats" in recipe
    assert f"0.01 to 0.1 to {some['lowest'].min():.2f} to {some['highest'].max():.2f}" in recipe
    exact = _row(table, lr=1.0, precision="float32", wd=0.0)
    assert f"decay has {exact['lowest']:.2f} to {exact['highest']:.2f} on seeds" in recipe


def test_fig5_says_what_its_table_says():
    table, recipe = _table("fig5"), _recipe("fig5")

    def differences(network):
        row = _row(table, network=network, lr=6e-3, wd=0.3)
        return [float(d) for d in row["minus no decay"].split()]

    both = differences("both")
    assert max(both + differences("branch norm")) < 0 < min(differences("q/k norm") + differences("plain"))
    assert f"with q and k too by {-max(both):.3f} to {-min(both):.3f} nats" in recipe
    rates = table[(table["network"] == "both") & (table["wd"] == 0.0)].set_index("lr")["mean"]
    assert len(rates) == 4 and rates.idxmin() == 0.03
    decayed, plain = (_row(table, network=n, lr=6e-3, wd=w)["mean"] for n, w in (("both", 0.3), ("plain", 0.0)))
    assert f"with {rates.min():.3f} nats, where decay 0.3 at 6e-3 has {decayed:.3f}" in recipe
    assert f"the better model at this size ({plain:.3f})" in recipe and plain < rates.min()


def test_fig16_says_what_its_table_says():
    table, recipe = _table("fig16"), _recipe("fig16")
    none = [f"{_row(table, lr=lr, wd=0.0)['mean']:.3f}" for lr in (0.3, 1.0, 3.0)]
    assert f"end at {none[0]}, {none[1]} and {none[2]} nats" in recipe
    differences = [float(d) for row in table["minus no decay"].dropna() for d in row.split()]
    assert len(differences) == 18 and max(differences) < 0


def test_fig15_and_fig20_say_what_their_tables_say():
    differences = [float(d) for d in _table("fig15")["minus no decay"].dropna()]
    assert f"{-differences[0]:.3f} and {-differences[1]:.3f} nats lower than 0" in _recipe("fig15")
    assert f"1e-3 {differences[2]:.3f} higher" in _recipe("fig15")
    by_lr = _table("fig20").set_index("lr")["mean"].sort_values()
    assert list(by_lr.index[:2]) == [0.004, 0.01]
    assert "is 4e-3 on seeds 0 to 2, with 0.01 close" in _recipe("fig20")
