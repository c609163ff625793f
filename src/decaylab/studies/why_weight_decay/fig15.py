"""Fig. 15: does an L2 penalty in the loss do what decoupled weight decay does?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from decaylab.experiments.chart_data import curves, finals
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import final
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.experiments.tuned import tuned_lower
from decaylab.studies.why_weight_decay.recipes_gpt2 import SEEDS, base_run, main_runs, relabelled, trained_only

LOSS = final("train/loss", name="training loss")
PENALTY: dict[str, Label] = {"rule": "L2 in the loss"}
DECOUPLED: dict[str, Label] = {"rule": "decoupled"}
# (micro-batches a step, coefficients) of the authors' commands: the global batch is 256 either way, only the rounding
# differs.
_PAPER_PENALTIES = ((32, (1e-6, 3e-6)), (8, (5e-6, 7e-6)), (32, (1e-5, 1e-4, 1e-3)))
_SMALL_PENALTIES = ((1, (1e-4, 3e-4, 1e-3)),)


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    runs = [s for s in main_runs(budget, seeds) if s.labels["study"] == "main" and s.labels["schedule"] == "cosine"]
    specs = [RunSpec(config=s.config, labels={**s.labels, **DECOUPLED}) for s in relabelled(runs, "wd", "seed")]
    base = trained_only(base_run(budget))
    base = replace(base, decay=replace(base.decay, rule="loss-l2"))
    for accumulation, coefficients in _PAPER_PENALTIES if budget == "paper" else _SMALL_PENALTIES:
        axes = {"decay.weight_decay": coefficients, "seed": list(seeds)}
        specs += grid(replace(base, accumulation=accumulation), axes, labels=PENALTY)
    return specs


EXPERIMENT = Experiment(
    id="fig15",
    title="An L2 penalty in the loss instead of decoupled weight decay",
    paper="Fig. 15",
    question="Is it decoupling that makes weight decay useful in language modelling, or does a penalty in the loss, "
    "whose gradient passes through Adam's normalisation, have the same effect?",
    seeds=SEEDS,
    plan=_plan,
    charts=(
        Chart(
            id="loss",
            title="Training loss",
            data=curves("train/loss", start=0.05),
            x="step",
            color="wd",
            palette="ordered",
            panel="rule",
            x_title="step",
            y_title="training loss (nats per token)",
            color_title="coefficient",
            caption="Loss without the penalty on fixed training batches, mean over seeds with its 95 % interval.",
        ),
        Chart(
            id="norm",
            title="Norm of the hidden matrices",
            data=curves("weights/norm/matrix"),
            x="step",
            color="wd",
            palette="ordered",
            panel="rule",
            x_title="step",
            y_title="norm",
            color_title="coefficient",
            caption="Both keep the norm small, with coefficients of different scales.",
        ),
        Chart(
            id="final",
            title="Final training loss by coefficient",
            data=finals("train/loss", where=PENALTY),
            x="wd",
            kind="points",
            log_x=True,
            x_title="coefficient c of the penalty c ||w||^2",
            y_title="training loss (nats per token)",
            caption="Mean over seeds with its 95 % interval.",
        ),
    ),
    claims=(
        Claim(
            id="penalty-lowers-the-loss",
            sentence="With a tuned L2 penalty in the loss training ends with a lower loss than without.",
            check=tuned_lower(LOSS, over="wd", where=PENALTY, than=DECOUPLED | {"wd": 0.0}),
        ),
        Claim(
            id="as-good-as-decoupled",
            sentence="A tuned L2 penalty ends at most 0.02 nats above decoupled weight decay 0.1.",
            check=tuned_lower(LOSS, over="wd", where=PENALTY, than=DECOUPLED | {"wd": 0.1}, by=-0.02),
        ),
    ),
    recipe={
        "smoke": "Twenty steps of the small network: proves that the path works.",
        "mini": "The branch-normalised GPT of Fig. 5; the penalty c ||w||^2 on its hidden matrices has no factor 1/2 "
        "and its gradient is clipped together with that of the loss. Searched on seed 0, 2000 steps, coefficients 0 "
        "and 1e-4 to 1e-3 (examples/search_language.py fig15, with its table in results/searches): 1e-4 and 3e-4 end "
        "0.022 and 0.020 nats lower than 0, 1e-3 0.037 higher. Their scale is that of the gradients, so it is not that "
        "of the paper's.",
        "paper": "The runs of Fig. 5 with the penalty c ||w||^2 (no factor 1/2, in the loss, before the clipping, as "
        "in the authors' code) on the weights that decay there, and without decoupled decay. Coefficients "
        f"{', '.join(f'{c:g}' for _, own in _PAPER_PENALTIES for c in own)} and micro-batches as in the authors' "
        "commands; the paper's text names no coefficients.",
    },
)
