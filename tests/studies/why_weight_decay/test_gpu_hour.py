"""The budget of an hour of one GPU: which figures have it, that it fits, and that claims are tested there."""

import pytest
from tests.support.synthetic import results

from decaylab import studies
from decaylab.cli import main
from decaylab.config.cost import flops_per_step, num_steps
from decaylab.experiments.evidence import Verdict

FIGURES = ("fig1", "fig3", "fig5", "fig7")
# Floating-point operations a second that a training keeps up on a consumer card: a quarter of its data sheet's rate in
# 16-bit arithmetic, and a third of that in 32-bit arithmetic. A step takes 8 ms at least, most of it calls.
LOW, FULL, CALLS = 40e12, 13e12, 8e-3


def test_four_figures_have_it_and_fig11_which_has_the_runs_of_fig1():
    have = {name for name in studies.all_ids() if "gpu-hour" in studies.get(name).budgets}
    assert have == {*FIGURES, "fig11"}


@pytest.mark.parametrize("name", FIGURES)
def test_its_steps_take_less_than_an_hour(name):
    seconds = 0.0
    for spec in studies.get(name).runs("gpu-hour"):
        rate = FULL if spec.config.precision == "float32" else LOW
        seconds += num_steps(spec.config) * max(CALLS, flops_per_step(spec.config) / rate)
    assert 900 < seconds < 3600


def test_runs_are_the_paper_s_but_for_their_length():
    hour = {run.labels["panel"]: run.config for run in studies.get("fig1").runs("gpu-hour")}
    paper = {run.labels["panel"]: run.config for run in studies.get("fig1").runs("paper")}
    for panel, config in hour.items():
        assert (config.model, config.data, config.batch_size) == (
            paper[panel].model,
            paper[panel].data,
            paper[panel].batch_size,
        )
        assert config.epochs == 40
    assert set(paper) - set(hour) == {"ResNet-34, CIFAR-100"}


@pytest.mark.parametrize("name", FIGURES)
def test_claims_are_tested_or_say_why_not(name):
    for claim in studies.get(name).claims:
        if "gpu-hour" not in claim.budgets:
            evidence = claim.evaluate(results("gpu-hour"))
            assert evidence.verdict is Verdict.NOT_TESTABLE and "only proves" not in evidence.reason


def test_show_lists_it(capsys):
    assert main(["show", "fig5", "--budget", "gpu-hour"]) == 0
    assert "98M tokens" in " ".join(capsys.readouterr().out.split())
    assert main(["show", "fig2", "--budget", "gpu-hour"]) == 2
    assert "unknown budget of fig2 'gpu-hour'" in capsys.readouterr().err
