import subprocess
import sys

import pytest
from tests.support.synthetic import results

from decaylab import studies
from decaylab.config.schema import LanguageRun, VisionRun
from decaylab.errors import DecaylabError
from decaylab.experiments import checks
from decaylab.experiments.evidence import Verdict
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import final
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment, Table, with_settings

CLAIM = Claim(
    id="lower",
    sentence="Decay lowers the error.",
    check=checks.lower(final("test/error"), this={"lr": "large", "wd": "with"}, than={"lr": "large", "wd": "none"}),
)


def experiment(**changes):
    fields = {
        "id": "demo",
        "title": "A demonstration",
        "paper": "own",
        "question": "Does it work?",
        "seeds": {"smoke": (0,), "mini": (10, 11, 12)},
        "plan": lambda budget, seeds: grid(VisionRun(), {"optimizer.lr": [0.1, 0.2], "seed": seeds}),
        "charts": (Chart(id="a", title="Error", data=lambda r: r.metric("test/error")),),
        "claims": (CLAIM,),
        "recipe": {"smoke": "small", "mini": "medium"},
    }
    return Experiment(**{**fields, **changes})


def test_a_plan_gives_labelled_runs():
    runs = experiment().runs("mini")
    assert len({run.id for run in runs}) == len(runs) == 6
    assert runs[0].labels == {"lr": 0.1, "seed": 10}
    assert runs[0].config.optimizer.lr == 0.1
    assert experiment().budgets == ("smoke", "mini")


@pytest.mark.parametrize(("number", "seeds"), [(None, (10, 11, 12)), (1, (10,)), (5, (10, 11, 12, 13, 14))])
def test_more_or_fewer_seeds(number, seeds):
    assert experiment().seed_list("mini", number) == seeds


def test_unknown_budget_and_no_seeds():
    with pytest.raises(DecaylabError, match="unknown budget of demo 'paper'"):
        experiment().runs("paper")
    with pytest.raises(DecaylabError, match="number of seeds"):
        experiment().runs("mini", 0)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (lambda b, s: [RunSpec(config=VisionRun(), labels={"lr": 0.1})], "with a seed"),
        (lambda b, s: [RunSpec(config=VisionRun(), labels={"seed": 0, "step": 1})], "cannot be called 'step'"),
        (lambda b, s: [RunSpec(config=VisionRun(), labels={"seed": 0})] * 2, "there twice"),
    ],
)
def test_plans_that_break_their_rules(plan, message):
    with pytest.raises(ValueError, match=message):
        experiment(plan=plan).runs("mini")


def test_ids_are_unique_within_an_experiment():
    with pytest.raises(ValueError, match="claim id 'lower' is there twice"):
        experiment(claims=(CLAIM, CLAIM))
    table = Table(id=experiment().charts[0].id, title="", data=lambda results: None, columns={})
    with pytest.raises(ValueError, match="chart or table id"):
        experiment(tables=(table,))
    with pytest.raises(ValueError, match="same budgets"):
        experiment(recipe={"mini": "x"})


def test_a_claim_waits_for_its_budget():
    assert CLAIM.evaluate(results("mini")).verdict is Verdict.HOLDS
    evidence = CLAIM.evaluate(results("smoke"))
    assert evidence.verdict is Verdict.NOT_TESTABLE
    assert "smoke" in evidence.reason


def test_settings_by_path():
    config = with_settings(LanguageRun(), {"model.width": 64, "schedule.final_ratio": 0.2})
    assert (config.model.width, config.schedule.final_ratio) == (64, 0.2)
    with pytest.raises(ValueError, match="did you mean 'width'"):
        with_settings(LanguageRun(), {"model.widht": 64})
    with pytest.raises(ValueError, match="inside a plain value"):
        with_settings(LanguageRun(), {"seed.x": 64})


def test_axes_that_vary_together_and_names():
    paths = ("schedule.kind", "schedule.final_ratio")
    runs = grid(
        LanguageRun(),
        {paths: {"cosine": ("cosine", 0.1), "constant": ("constant", None)}, "decay.weight_decay": (0.0, 0.3)},
        names={paths: "schedule"},
        labels={"net": "gpt"},
    )
    assert [run.labels["schedule"] for run in runs] == ["cosine", "cosine", "constant", "constant"]
    assert runs[1].labels == {"net": "gpt", "schedule": "cosine", "schedule_value": "cosine", "wd": 0.3, "seed": 0}
    assert runs[2].config.schedule.kind == "constant"
    with pytest.raises(ValueError, match="2 settings vary together"):
        grid(LanguageRun(), {paths: [("cosine",)]})


def test_the_registry():
    with pytest.raises(DecaylabError, match="unknown experiment 'fig'"):
        studies.get("fig")
    with pytest.raises(ValueError, match="'fig1' is there twice"):
        studies._by_id("fig1", "fig5", "older.fig1")


@pytest.mark.parametrize("budget", ["smoke", "mini", "gpu-hour", "paper"])
@pytest.mark.parametrize("name", studies.all_ids())
def test_every_experiment_plans_runs_that_can_be_written_down(name, budget):
    from decaylab.config.identity import from_dict, to_dict
    from decaylab.config.validation import check

    found = studies.get(name)
    if budget not in found.budgets:
        pytest.skip(f"{name} has no {budget} budget")
    for run in found.runs(budget):
        check(run.config)
        assert from_dict(to_dict(run.config)) == run.config


def test_declarations_load_no_heavy_library():
    code = (
        "import sys; from decaylab import studies; [studies.get(n) for n in studies.all_ids()]; "
        "import decaylab.experiments.checks, decaylab.experiments.chart_data, decaylab.experiments.grid; "
        "print(sorted({'torch', 'pandas', 'numpy', 'scipy', 'altair'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
