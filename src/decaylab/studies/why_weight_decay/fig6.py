"""Fig. 6: what does weight decay do to the effective learning rate of a language model?"""

from __future__ import annotations

from collections.abc import Sequence

from decaylab.experiments.chart_data import curves
from decaylab.experiments.checks import all_of, higher
from decaylab.experiments.quantity import final
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.why_weight_decay.recipes_gpt2 import COSINE_DECAYS, RECIPES, SEEDS, main_runs, relabelled

COSINE: dict[str, Label] = {"schedule": "cosine"}


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    runs = [s for s in main_runs(budget, seeds) if s.labels["study"] == "main"]
    return relabelled(runs, "schedule", "wd", "seed", "panel")


EXPERIMENT = Experiment(
    id="fig6",
    title="The effective learning rate with and without weight decay",
    paper="Fig. 6",
    question="Does weight decay, by keeping the norm small, raise the effective learning rate "
    "lr / ((1 - lr wd) ||w||) at the end of training?",
    seeds=SEEDS,
    plan=_plan,
    charts=(
        Chart(
            id="all",
            title="Effective learning rate of all weights",
            data=curves("effective_lr"),
            x="step",
            color="wd",
            palette="wd",
            panel="panel",
            log_y=True,
            x_title="step",
            y_title="lr / ((1 - lr wd) ||w||)",
            color_title="weight decay",
            caption="The paper's quantity: the norm is that of all weights together.",
        ),
        Chart(
            id="matrices",
            title="Effective learning rate of the hidden matrices",
            data=curves("effective_lr/matrix"),
            x="step",
            color="wd",
            palette="wd",
            panel="panel",
            log_y=True,
            x_title="step",
            y_title="lr / ((1 - lr wd) ||w||)",
            color_title="weight decay",
            caption="The weights that decay at every budget.",
        ),
    ),
    claims=tuple(
        Claim(
            id=f"ends-higher-{kind}",
            sentence=f"With a cosine learning rate the effective learning rate of {what} ends higher with decay 0.1 "
            "and 0.3 than without.",
            check=all_of(
                *(
                    higher(
                        final(key, name="effective learning rate"), this=COSINE | {"wd": wd}, than=COSINE | {"wd": 0.0}
                    )
                    for wd in COSINE_DECAYS[1:]
                )
            ),
        )
        for kind, what, key in (
            ("all", "all weights together", "effective_lr"),
            ("matrices", "the hidden matrices", "effective_lr/matrix"),
        )
    ),
    recipe=RECIPES,
)
