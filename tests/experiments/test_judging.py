"""Oracle: scipy's paired t interval on the same numbers, and the engine's own verdicts on the same runs."""

import math

import pandas as pd
import pytest
from scipy import stats
from tests.support.synthetic import results

from decaylab.errors import DecaylabError
from decaylab.experiments import Claim, final, judge, lower
from decaylab.experiments.judging import FORMS, check_from

SEEDS = range(5)


def runs(**columns):
    """Runs at two decays and three learning rates."""
    rows = [{"seed": s, "wd": wd, "lr": lr} for s in SEEDS for wd in (0.0, 0.1) for lr in (0.01, 0.1, 1.0)]
    return pd.DataFrame([{**r, **{name: value(r) for name, value in columns.items()}} for r in rows])


TABLE = runs(
    loss=lambda r: 2 + math.sin(7 * r["seed"]) + r["wd"] * (math.cos(r["seed"]) - 3) + 0.1 * r["lr"],
    gap=lambda r: 0.01 * r["seed"],
    net=lambda r: "small net",
)


def test_a_paired_difference_is_scipys():
    (found,) = judge(TABLE, ["loss is lower with wd=0.1 than with wd=0 where lr=1"])
    differences = [0.1 * (math.cos(s) - 3) for s in SEEDS]
    low, high = stats.t.interval(0.95, len(differences) - 1, stats.tmean(differences), stats.sem(differences))
    (comparison,) = found.evidence.comparisons
    assert comparison.low == pytest.approx(low)
    assert comparison.high == pytest.approx(high)
    assert (found.verdict.value, comparison.seeds) == ("holds", tuple(SEEDS))


@pytest.mark.parametrize(
    ("sentence", "verdict"),
    [
        ("loss is higher with wd=0.1 than with wd=0 where lr=1", "fails"),
        ("loss lower by 0.2 with wd=0.1 than wd=0 where lr=1", "holds"),
        ("loss is lower by 0.3 with wd=0.1 than with wd=0 where lr=1", "undecided"),
        ("loss is lower with wd=0.1, lr=1 than with wd=0, lr=1", "holds"),
        ("loss is lower with wd=0.1,lr=1 than with wd=0,lr=1", "holds"),
        ("loss is lower with wd=0.1 and lr=1 than with wd=0 and lr=1", "holds"),
        ("loss is equal within 0.5 with wd=0.1 and wd=0 where lr=1", "holds"),
        ("loss is equal within 0.01 with wd=0.1 and with wd=0 where lr=1", "fails"),
        ("gap is below 0.1 with wd=0 lr=1", "holds"),
        ("gap is above 0.1 with wd=0 lr=1", "fails"),
        ("gap is between -0.1 and 0.1 with wd=0, lr=1", "holds"),
        ("loss rises with lr where wd=0", "holds"),
        ("loss falls with lr where wd=0.1", "fails"),
        ("loss is lower with wd=0.1 than with wd=0 where lr=1 'net=small net'", "holds"),
    ],
)
def test_sentences(sentence, verdict):
    assert judge(TABLE, [sentence])[0].verdict.value == verdict


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "loss",
        "loss is lower",
        "loss is lower with wd=0.1",
        "loss is equal with wd=0 and wd=1",
        "loss is below much",
        "loss is lower with wd=0 than with wd=1 today",
        "is lower with wd=0 than with wd=1",
        "loss is between 1 2 with wd=0",
    ],
)
def test_other_sentences_are_refused_with_the_forms(sentence):
    with pytest.raises(DecaylabError) as error:
        check_from(sentence)
    assert FORMS[0] in str(error.value)


def test_pairs_over_several_columns():
    (found,) = judge(TABLE, ["loss is lower with wd=0.1 than with wd=0"], seed=("seed", "lr"))
    assert len(found.evidence.comparisons[0].seeds) == 15
    assert found.verdict.value == "holds"


def test_claims_and_checks_of_the_engine_are_taken_too():
    check = lower(final("loss"), this={"wd": 0.1, "lr": 1.0}, than={"wd": 0.0, "lr": 1.0})
    claim = Claim(id="a", sentence="Decay lowers the loss.", check=check, budgets=("paper",))
    found = judge(TABLE.to_dict("records"), [claim, check])
    assert [j.verdict.value for j in found] == ["holds", "holds"]
    assert str(found[0]).startswith("holds: Decay lowers the loss.\n  final loss: WD 0.1")


def test_it_agrees_with_the_engine_on_the_same_runs():
    own = results("mini")
    table = own.final("test/error").rename(columns={"value": "test/error"})
    check = lower(final("test/error"), this={"lr": "large", "wd": "with"}, than={"lr": "large", "wd": "none"})
    (found,) = judge(table, [check], status="status")
    assert found.evidence == check(own)


def test_runs_that_have_not_ended_and_runs_that_diverged():
    table = TABLE[TABLE["lr"] == 1].assign(state="finished")
    claim = "loss is lower with wd=0 than with wd=0.1"
    assert judge(table, [claim], status="state")[0].verdict.value == "fails"
    table.loc[table.index[0], "state"] = "running"
    assert judge(table, [claim], status="state")[0].verdict.value == "not testable at this budget"
    table["state"] = ["diverged" if wd else "finished" for wd in table["wd"]]
    found = judge(table, [claim], status="state")[0]
    assert "5 of 5 runs with WD 0.1" in str(found)
    assert found.evidence.comparisons[0].estimate == -math.inf


def test_a_row_a_step():
    rows = [
        {"run": f"{s}-{wd}", "seed": s, "wd": wd, "step": step, "loss": 3 - wd * step + 0.1 * s * (1 + wd)}
        for s in range(3)
        for wd in (0.0, 0.1)
        for step in (20, 10, 0)
    ]
    claim = "loss is lower by 1.9 with wd=0.1 than with wd=0"
    (found,) = judge(rows, [claim], run="run", step="step")
    assert found.evidence.comparisons[0].estimate == pytest.approx(-2 + 0.01)
    assert found.verdict.value == "holds"
    with pytest.raises(DecaylabError, match=r"several runs have wd=0.1 and seed 0; they differ in step \(20 and 10\)"):
        judge(rows, [claim])
    with pytest.raises(DecaylabError, match="needs both columns"):
        judge(rows, [claim], step="step")


def test_numbers_that_are_missing():
    table = TABLE.copy()
    table.loc[(table["seed"] == 2) & (table["wd"] == 0.1), "loss"] = math.nan
    (found,) = judge(table, ["loss is lower with wd=0.1 than with wd=0 where lr=1"])
    assert found.verdict.value == "not testable at this budget"
    assert "4 of 5 seeds have a value" in str(found)
