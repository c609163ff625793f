"""Fig. 19: does a learning rate that ends slightly higher do what weight decay does?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from decaylab.experiments.chart_data import curves
from decaylab.experiments.checks import higher
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import final, mean_over
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.experiments.tuned import tuned_lower
from decaylab.studies.why_weight_decay.recipes_gpt2 import SEEDS, base_run, main_runs, relabelled, trained_only

LOSS = final("train/loss", name="training loss")
BEFORE = mean_over("train/loss", 0.5, 0.8, name="training loss")
USUAL: dict[str, Label] = {"stretch": 1.0}
SLOWER: dict[str, Label] = {"wd": 0.0, "schedule": "slower decay"}
_STRETCH = (1.1, 1.2, 1.3)  # length of the cosine over that of the run


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    runs = [s for s in main_runs(budget, seeds) if s.labels["study"] == "main" and s.labels["schedule"] == "cosine"]
    specs = [
        RunSpec(config=s.config, labels={**s.labels, **USUAL, "schedule": "usual", "setting": f"WD {s.labels['wd']:g}"})
        for s in relabelled(runs, "wd", "seed")
    ]
    base = trained_only(base_run(budget))
    if budget == "paper":
        base = replace(base, accumulation=8)
    for stretch in _STRETCH:
        slower = replace(base, schedule=replace(base.schedule, decay_steps=round(stretch * base.steps)))
        labels = {**SLOWER, "stretch": stretch, "setting": f"WD 0, cosine x {stretch:g}"}
        specs += grid(slower, {"seed": list(seeds)}, labels=labels)
    return specs


EXPERIMENT = Experiment(
    id="fig19",
    title="A slower decay of the learning rate instead of weight decay",
    paper="Fig. 19",
    question="If weight decay acts as a higher effective learning rate at the end, does a learning rate that ends "
    "higher, without weight decay, have the same effect?",
    seeds=SEEDS,
    plan=_plan,
    charts=(
        Chart(
            id="loss",
            title="Training loss in the second half",
            data=curves("train/loss", start=0.5),
            x="step",
            color="setting",
            x_title="step",
            y_title="training loss (nats per token)",
            color_title="run",
            caption="Loss on fixed training batches, mean over seeds with its 95 % interval. Cosine x 1.1: the cosine "
            "is 1.1 times as long as the run, so the learning rate ends above a tenth of its peak.",
        ),
        Chart(
            id="lr",
            title="Learning rate",
            data=curves("lr"),
            x="step",
            color="setting",
            x_title="step",
            y_title="learning rate",
            color_title="run",
        ),
    ),
    claims=(
        Claim(
            id="slower-decay-lowers-the-loss",
            sentence="Without weight decay, a cosine that is 1.1 to 1.3 times as long as the run ends with a lower "
            "training loss than one that ends with it.",
            check=tuned_lower(LOSS, over="stretch", where=SLOWER, than=USUAL | {"wd": 0.0}),
        ),
        Claim(
            id="higher-before",
            sentence="Before, from 50 to 80 % of training, the loss with the cosine 1.2 times as long is the higher "
            "one, as it is with weight decay.",
            check=higher(BEFORE, this=SLOWER | {"stretch": 1.2}, than=USUAL | {"wd": 0.0, "schedule": "usual"}),
        ),
    ),
    recipe={
        "smoke": "Twenty steps of the small network: proves that the path works.",
        "mini": "The branch-normalised GPT of Fig. 5 without weight decay; the cosine is 1.1, 1.2 and 1.3 times as "
        "long as the run, the ratios of the authors' commands. Nothing was searched.",
        "paper": "The runs of Fig. 5 without weight decay, with a cosine of 55,000, 60,000 and 65,000 steps, stopped "
        "after 50,000; 8 micro-batches a step, as in the authors' commands. The paper's text names no lengths.",
    },
)
