"""The language figures: what their declarations promise, and that every claim and chart can read its runs."""

import zlib

import numpy as np
import pandas as pd
import pytest
from tests.support.synthetic import Row

from decaylab import schedules, studies
from decaylab.config.identity import run_id
from decaylab.experiments.evidence import Verdict
from decaylab.experiments.results import Results
from decaylab.studies import blog32f
from decaylab.studies.why_weight_decay import fig18

LANGUAGE = ("fig4", "fig5", "fig6", "fig7", "fig14", "fig15", "fig16", "fig17", "fig18", "fig19", "fig20", "blog32f")


def _results(experiment, budget, seeds=3, change=None):
    """Every key of every run has a record at 11 points of the run; ``change(labels, key, fraction)`` adds to them."""
    specs = experiment.runs(budget, seeds)
    total = {spec.id: spec.config.steps for spec in specs}
    rows = {spec.id: Row(step=total[spec.id], total_steps=total[spec.id]) for spec in specs}

    def fetch(keys):
        found = []
        for spec in specs:
            for key in keys:
                if key == "epoch":
                    continue
                rng = np.random.default_rng(zlib.crc32(f"{spec.id}{key}".encode()))
                for fraction in np.linspace(0, 1, 11):
                    extra = change(spec.labels, key, fraction) if change else 0.0
                    value = 2 + 0.001 * rng.standard_normal() + extra
                    found.append((spec.id, fraction * total[spec.id], key, value))
        return pd.DataFrame(found, columns=["run", "step", "key", "value"])

    return Results(specs, rows, fetch, budget=budget)


@pytest.mark.parametrize("budget", ["mini", "paper"])
@pytest.mark.parametrize("name", LANGUAGE)
def test_every_claim_chart_and_table_reads_its_runs(name, budget):
    experiment = studies.get(name)
    results = _results(experiment, budget)
    for claim in experiment.claims:
        evidence = claim.evaluate(results)
        assert (evidence.verdict is Verdict.NOT_TESTABLE) == (budget not in claim.budgets), evidence.reason
    for chart in experiment.charts:
        table = chart.data(results)
        named = (chart.x, chart.y, chart.color, chart.dash, chart.panel, chart.over)
        assert {n for n in named if n} <= set(table.columns)
        assert len(table)
    for sheet in experiment.tables:
        table = sheet.data(results)
        assert {*sheet.columns, *sheet.literal} <= set(table.columns)
        assert len(table)


def test_figures_share_runs():
    ids = {name: {spec.id for spec in studies.get(name).runs("mini")} for name in LANGUAGE}
    for name in ("fig4", "fig6", "fig17", "fig18"):
        assert ids[name] <= ids["fig5"]
    for name in ("fig14", "fig15", "fig19"):
        assert ids[name] & ids["fig4"]
    paper = {name: {spec.id for spec in studies.get(name).runs("paper")} for name in ("fig7", "fig20")}
    # bfloat16 with two learning rates, three decays, three seeds; and the low learning rate without decay.
    assert len(paper["fig7"] & paper["fig20"]) == 18 + 3


def test_copies_start_from_snapshots_that_are_kept():
    for budget in ("smoke", "mini", "gpu-hour", "paper"):
        specs = studies.get("fig5").runs(budget)
        parents = {spec.id: spec.config for spec in specs}
        copies = [spec.config for spec in specs if spec.config.init_from is not None]
        assert copies
        for copy in copies:
            parent = parents[copy.init_from.run]
            assert copy.init_from.step % parent.snapshots_every == 0
            assert parent.snapshot_optimizer


def test_slower_decay_ends_higher():
    runs = [s for s in studies.get("fig19").runs("mini") if s.labels["wd"] == 0.0 and s.labels["seed"] == 100]
    last = {
        s.labels["stretch"]: schedules.value(
            s.config.schedule, s.config.steps - 1, s.config.optimizer.lr, s.config.steps
        )
        for s in runs
    }
    assert sorted(last) == [1.0, 1.1, 1.2, 1.3]
    assert [last[k] for k in sorted(last)] == sorted(last.values())
    assert last[1.0] == pytest.approx(6e-4, rel=1e-3)


def test_the_blog_trains_on_its_tokens_and_the_small_version_keeps_the_timescales():
    assert blog32f.BLOG.steps * blog32f.BLOG.batch_size * blog32f.BLOG.model.context == blog32f.TOKENS
    assert blog32f.BLOG.steps == 33_165
    product = blog32f.BLOG.steps * blog32f.BLOG.optimizer.lr
    assert blog32f.SMALL.steps * blog32f.SMALL.optimizer.lr == pytest.approx(product, rel=1e-3)
    peaks = {s.config.optimizer.lr for s in blog32f.EXPERIMENT.runs("paper")}
    assert peaks == {4e-4, 1.4e-3}
    warmups = {s.config.schedule.warmup_steps for s in blog32f.EXPERIMENT.runs("paper")}
    assert warmups == {0, 3316}
    assert all(s.config.evaluation.prompt == "Every effort moves you" for s in blog32f.EXPERIMENT.runs("paper"))


def test_averages_are_compared_where_they_are_claimed():
    """Where the learning rate is constant the average counts, elsewhere the iterate; copies count at their end."""

    def change(labels, key, fraction):
        if key == fig18.AVERAGE:
            return -0.1 if labels["phase"] == "trained" and fraction <= 0.51 else -0.2
        return -0.5 if labels["phase"] == "fine-tuned" else 0.0

    results = _results(studies.get("fig18"), "mini", change=change)
    constant = results.by_seed({"phase": "trained", "schedule": "constant", "wd": 0.0})[100]
    cosine = results.by_seed({"phase": "trained", "schedule": "cosine", "wd": 0.0})[100]
    copy = results.by_seed({"phase": "fine-tuned", "wd": 0.0})[100]
    assert fig18.DECAYED_OR_AVERAGED.read(results, constant) == pytest.approx(1.8, abs=0.01)
    assert fig18.DECAYED_OR_AVERAGED.read(results, cosine) == pytest.approx(2.0, abs=0.01)
    assert fig18.TUNED_OR_AVERAGED.read(results, cosine) == pytest.approx(1.9, abs=0.01)
    assert fig18.TUNED_OR_AVERAGED.read(results, copy) == pytest.approx(1.5, abs=0.01)


def test_the_plain_network_of_fig5_has_no_extras():
    """Fig. 5's second network serves nothing but its last claim, so it carries no averages and no curvature."""
    plain = [s.config for s in studies.get("fig5").runs("mini") if s.labels["study"] == "pre-LN"]
    assert len(plain) == len({run_id(c) for c in plain}) == 3 * len(studies.get("fig5").seeds["mini"])
    assert not any(c.averages.ema or c.averages.uniform for c in plain)
    assert not any(c.probes.curvature for c in plain)
