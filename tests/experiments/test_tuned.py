"""A tuned setting is judged at what is best for the other seeds."""

import math

import pandas as pd
import pytest
from tests.support.synthetic import Row

from decaylab.config.schema import LanguageRun
from decaylab.experiments.evidence import Verdict
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import final
from decaylab.experiments.results import Results
from decaylab.experiments.tuned import tuned_lower

LOSS = final("train/loss")
CHECK = tuned_lower(LOSS, over="wd", where={"decay": "with"}, than={"decay": "none"})


def _results(losses, waiting=()):
    """``losses[wd]`` are the final losses of the seeds 0, 1, ...; decay 0 is the other setting."""
    specs = []
    for wd, values in losses.items():
        axes = {"decay.weight_decay": [wd], "seed": list(range(len(values)))}
        specs += grid(LanguageRun(), axes, labels={"decay": "with" if wd else "none"})
    rows = {s.id: Row(status="waiting" if (s.labels["wd"], s.labels["seed"]) in waiting else "done") for s in specs}
    records = pd.DataFrame(
        [(s.id, 200, "train/loss", losses[s.labels["wd"]][s.labels["seed"]]) for s in specs],
        columns=["run", "step", "key", "value"],
    )
    return Results(specs, rows, lambda keys: records[records["key"].isin(keys)], budget="mini")


def test_each_seed_is_judged_by_the_choice_of_the_others():
    # 0.1 is best for seeds 1 and 2, 0.2 for seed 0; the others of seed 1 and of seed 2 like 0.2 better on average.
    losses = {0.0: [2.0, 2.0, 2.0], 0.1: [1.9, 1.4, 1.5], 0.2: [1.0, 1.5, 1.6]}
    evidence = CHECK(_results(losses))
    others_choose = [0.1, 0.2, 0.2]
    expected = [losses[wd][seed] - 2.0 for seed, wd in enumerate(others_choose)]
    assert evidence.comparisons[0].values == pytest.approx(expected)
    assert "wd 0.1, 0.2" in evidence.comparisons[0].note


def test_a_lucky_seed_does_not_flatter_itself():
    """Each setting is good for one seed only: the best of each would hold, the tuned one must not."""
    losses = {0.0: [2.0] * 4, 0.1: [1.0, 2.1, 2.1, 2.1], 0.2: [2.1, 1.0, 2.1, 2.1], 0.3: [2.1, 2.1, 1.0, 1.0]}
    best = [min(losses[wd][s] for wd in (0.1, 0.2, 0.3)) for s in range(4)]
    assert all(b == 1.0 for b in best)
    assert CHECK(_results(losses)).verdict is not Verdict.HOLDS


def test_holds_fails_and_waits():
    better = {0.0: [2.0, 2.1, 2.2], 0.1: [1.9, 2.0, 2.101], 0.2: [1.95, 2.0, 2.15]}
    assert CHECK(_results(better)).verdict is Verdict.HOLDS
    worse = {0.0: [2.0, 2.1, 2.2], 0.1: [2.1, 2.2, 2.301]}
    assert CHECK(_results(worse)).verdict is Verdict.FAILS
    margin = tuned_lower(LOSS, over="wd", where={"decay": "with"}, than={"decay": "none"}, by=-0.2)
    assert margin(_results(worse)).verdict is Verdict.HOLDS
    assert CHECK(_results(better, waiting={(0.1, 2)})).verdict is Verdict.NOT_TESTABLE
    assert CHECK(_results(better, waiting={(0.0, 2)})).verdict is Verdict.NOT_TESTABLE


def test_a_diverged_run_is_never_chosen_where_another_is_finite():
    losses = {0.0: [2.0, 2.0, 2.0], 0.1: [math.inf, 1.0, 1.0], 0.2: [1.5, 1.501, 1.502]}
    values = CHECK(_results(losses)).comparisons[0].values
    assert values[1:] == pytest.approx([-0.499, -0.498])
