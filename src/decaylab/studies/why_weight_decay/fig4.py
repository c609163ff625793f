"""Fig. 4: is weight decay a regulariser in language modelling, does it change the generalisation gap?"""

from __future__ import annotations

from collections.abc import Sequence

from decaylab.experiments.chart_data import curves
from decaylab.experiments.checks import all_of, equal, inside
from decaylab.experiments.quantity import mean_over
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.why_weight_decay.recipes_gpt2 import COSINE_DECAYS, RECIPES, SEEDS, main_runs, relabelled

GAP = mean_over("gap", 0.5, 1.0, name="validation minus training loss", unit="nats")


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    runs = main_runs(budget, seeds)
    return relabelled(
        [s for s in runs if s.labels["study"] == "main" and s.labels["schedule"] == "cosine"], "wd", "seed"
    )


EXPERIMENT = Experiment(
    id="fig4",
    title="The generalisation gap of a language model with and without weight decay",
    paper="Fig. 4",
    question="Does weight decay act as a regulariser when a model is trained on nearly fresh data?",
    seeds=SEEDS,
    plan=_plan,
    charts=(
        Chart(
            id="gap",
            title="Validation minus training loss",
            data=curves("gap"),
            x="step",
            color="wd",
            palette="wd",
            x_title="step",
            y_title="gap (nats per token)",
            color_title="weight decay",
            caption="Both losses on fixed batches, mean over seeds with its 95 % interval.",
        ),
    ),
    claims=(
        Claim(
            id="gap-stays-near-zero",
            sentence="In the second half of training the gap stays within 0.05 nats of zero, for every weight decay.",
            check=all_of(*(inside(GAP, where={"wd": wd}, low=-0.05, high=0.05) for wd in COSINE_DECAYS)),
        ),
        Claim(
            id="decay-does-not-change-the-gap",
            sentence="Weight decay changes the gap by less than 0.02 nats.",
            check=all_of(*(equal(GAP, this={"wd": wd}, that={"wd": 0.0}, margin=0.02) for wd in COSINE_DECAYS[1:])),
        ),
    ),
    recipe=RECIPES,
)
