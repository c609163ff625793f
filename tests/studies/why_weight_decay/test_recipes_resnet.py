"""The runs of the residual-network figures: the paper's facts, and copies that start where their parents were."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from decaylab import studies
from decaylab.config.identity import run_id
from decaylab.experiments.quantity import final, percent
from decaylab.experiments.results import Results
from decaylab.schedules import Schedule
from decaylab.studies.why_weight_decay import prop3
from decaylab.studies.why_weight_decay import recipes_resnet as resnets

STUDIES = [resnets.SPHERE, resnets.DECAYED]


@pytest.mark.parametrize("budget", sorted(resnets.SPHERE))
@pytest.mark.parametrize("study", STUDIES)
def test_copies_start_from_their_parents_snapshots(study, budget):
    recipe = study[budget]
    parents = resnets.trained(recipe, [0, 1])
    copies = resnets.fine_tuned_copies(recipe, parents)
    assert len(copies) == 2 * 3 * len(recipe.starts)
    by_id = {run_id(p.config): p for p in parents}
    for copy in copies:
        parent = by_id[copy.config.init_from.run]
        steps = {"paper": 391, "mini": 8, "smoke": 2}[budget]
        assert copy.config.init_from.step == steps * copy.labels["start"]
        assert copy.labels["start"] in parent.config.snapshots_at
        assert copy.config.decay.weight_decay == 0
        assert copy.config.schedule == Schedule()
        assert copy.config.optimizer.lr == parent.config.schedule.final_lr
        assert (copy.config.data, copy.config.model, copy.config.seed) == (
            parent.config.data,
            parent.config.model,
            parent.config.seed,
        )


def test_the_paper_s_numbers():
    sphere, decayed = resnets.SPHERE["paper"], resnets.DECAYED["paper"]
    assert sphere.rates == (0.0001, 0.0005, 0.00075, 0.001, 0.002, 0.003, 0.004, 0.005)
    assert decayed.rates == (0.1, 0.15, 0.2)
    assert decayed.base.decay.weight_decay == 0.015
    assert decayed.averages == ("ema0.95", "ema0.999")
    assert (sphere.base.schedule.final_lr, decayed.base.schedule.final_lr) == (1e-4, 1e-3)
    for recipe in (sphere, decayed):
        assert recipe.starts[:3] == (1, 3, 5)
        assert recipe.starts[-1] == 99
        assert (recipe.base.epochs, recipe.epochs, recipe.base.batch_size) == (200, 100, 128)
        assert recipe.base.probes.curvature_points == 5000
    assert sphere.base.model.scale_invariant
    assert dict(sphere.base.decay.options) == {"radius": 1.0}


@pytest.mark.parametrize("budget", sorted(resnets.SPHERE))
def test_figures_share_runs(budget):
    ids = {e: {s.id for s in studies.get(e).runs(budget)} for e in ("fig2", "fig3", "fig8", "fig9", "fig12")}
    assert ids["fig8"] < ids["fig3"] == ids["fig9"]
    assert ids["fig12"] < ids["fig2"] | ids["fig3"]


def test_averages_of_a_recipe_are_those_of_its_runs():
    for recipe in resnets.DECAYED.values():
        names = tuple(f"ema{a:g}" for a in recipe.base.averages.ema)
        assert names == recipe.averages
        assert recipe.base.probes.curvature_at == ("iterate", *names)


def _results(values, budget="smoke"):
    """Every run of prop3 records a variance that is a power of its loss."""
    specs = prop3.EXPERIMENT.runs(budget)
    rows = {
        s.id: SimpleNamespace(status="done", reason="", step=4, total_steps=4, environment={}, summary={})
        for s in specs
    }
    found = []
    for spec in specs:
        for step, loss in enumerate(values):
            found += [(spec.id, step, "noise/loss", loss), (spec.id, step, "noise/variance", 7 * loss**1.5)]
    table = pd.DataFrame(found, columns=["run", "step", "key", "value"])
    return Results(specs, rows, lambda keys: table[table["key"].isin(keys)], budget=budget)


def test_prop3_reads_exponent_and_spans():
    results = _results([50.0, 1.0, 0.1, 0.01])
    run = results.specs[0].id
    assert prop3.EXPONENT.read(results, run) == pytest.approx(1.5)
    assert prop3.LOSS_SPAN.read(results, run) == pytest.approx(2.0)  # the untrained network does not count
    assert prop3.RATIO_SPAN.read(results, run) == pytest.approx(1.0)


def test_prop3_without_records_is_not_a_number():
    results = _results([50.0])
    assert math.isnan(prop3.EXPONENT.read(results, results.specs[0].id))


def test_percent_turns_ratios_into_differences():
    results = _results([50.0, 1.0, 0.2])
    run = results.specs[0].id
    assert percent(final("noise/loss")).read(results, run) == pytest.approx(100 * math.log(0.2))


def test_an_experiment_without_runs_has_results(tmp_path):
    from decaylab.reporting import build

    experiment = studies.get("fig10")
    assert experiment.runs("smoke") == ()
    results = Results((), {}, lambda keys: pytest.fail("nothing was trained"), budget="smoke")
    assert results.complete
    page = build([(experiment, results)], tmp_path).read_text()
    assert "nothing is trained for it" in page
    assert "NaN" not in (tmp_path / "charts" / "fig10-trace.csv").read_text()
