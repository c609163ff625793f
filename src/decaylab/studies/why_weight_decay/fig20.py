"""Fig. 20: what does the learning rate do to loss and weight norm of a bfloat16 run with a long context?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from decaylab.experiments.chart_data import curves
from decaylab.experiments.checks import trend
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import final
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.why_weight_decay.fig7 import LONG_CONTEXT, SMALL
from decaylab.studies.why_weight_decay.recipes_gpt2 import SEEDS, smoke

_RATES = {"smoke": (3e-3,), "mini": (1e-3, 2e-3, 4e-3), "paper": (3e-4, 6e-4, 1e-3)}
_DECAYS = {"smoke": (0.1,), "mini": (0.0, 0.1), "paper": (0.0, 0.1, 0.3)}


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    base = LONG_CONTEXT if budget == "paper" else SMALL
    if budget == "smoke":
        base = smoke(base)
    axes = {"optimizer.lr": _RATES[budget], "decay.weight_decay": _DECAYS[budget], "seed": list(seeds)}
    specs = grid(replace(base, precision="bfloat16"), axes)
    return [RunSpec(config=s.config, labels={**s.labels, "panel": f"WD {s.labels['wd']:g}"}) for s in specs]


EXPERIMENT = Experiment(
    id="fig20",
    title="Learning rates in bfloat16: loss and weight norm",
    paper="Fig. 20",
    question="A lower learning rate keeps bfloat16 runs from diverging: what does it cost, and what does it do to the "
    "norm of the weights?",
    seeds={**SEEDS, "mini": (100, 101, 102), "paper": (0, 1, 2)},
    plan=_plan,
    charts=(
        Chart(
            id="loss",
            title="Training loss",
            data=curves("train/loss", start=0.05),
            x="step",
            color="lr",
            palette="lr",
            panel="panel",
            x_title="step",
            y_title="training loss (nats per token)",
            color_title="learning rate",
            caption="Loss on fixed training batches in bfloat16, mean over seeds with its 95 % interval.",
        ),
        Chart(
            id="norm",
            title="Weight norm with weight decay 0.1",
            data=curves("weights/norm", where={"wd": 0.1}),
            x="step",
            color="lr",
            palette="lr",
            x_title="step",
            y_title="norm of all weights",
            color_title="learning rate",
        ),
    ),
    claims=(
        Claim(
            id="lower-lr-ends-higher",
            sentence="With weight decay 0.1 a lower learning rate ends with a higher training loss.",
            check=trend(final("train/loss", name="training loss"), over="lr", expect="falling", where={"wd": 0.1}),
        ),
        Claim(
            id="norm-grows-with-lr",
            sentence="With weight decay 0.1 the final norm of the weights grows with the learning rate.",
            check=trend(final("weights/norm", name="weight norm"), over="lr", expect="rising", where={"wd": 0.1}),
        ),
    ),
    recipe={
        "smoke": "Twenty steps of the small network: proves that the path works.",
        "mini": "The plain pre-LN GPT of Fig. 5, decay on matrices, embedding and head, bfloat16 autocast, LR 1e-3, "
        "2e-3 and 4e-3, 600 steps: up to the best learning rate of this size, which of six from 1e-3 to 0.1 without "
        "decay is 4e-3 on seeds 0 to 2, with 0.01 close (examples/search_language.py fig20, with its table in "
        "results/searches). Nothing diverges here, see Fig. 7.",
        "paper": "GPT-2 small with context 1024 in bfloat16, LR 3e-4, 6e-4 and 1e-3 with decays 0, 0.1 and 0.3, 16 "
        "micro-batches of 16. The README's commands have LR 6e-4 only; the other two are the figure's. Runs with LR "
        "6e-4 and 1e-3 are those of Fig. 7. A run whose loss rises by 1 nat and does not come back for 2000 steps ends "
        "there as diverged.",
    },
)
