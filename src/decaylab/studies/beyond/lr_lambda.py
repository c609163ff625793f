"""Landscape of learning rate and weight decay: does their product decide, and where does decay help at its best?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from decaylab.experiments.checks import all_of, interior_best
from decaylab.experiments.effects import best_is_lower, optimum_slope
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import final
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.beyond.recipes import RECIPE_MINI, RECIPE_PAPER, RECIPE_SMOKE, networks, seeds

if TYPE_CHECKING:
    import pandas as pd

    from decaylab.experiments.results import Results

LOSS = final("train/loss", name="training loss")
_RATES = {
    "smoke": (6e-3, 1.2e-2),
    "mini": (3e-3, 6e-3, 1.2e-2, 2.4e-2, 4.8e-2),
    "paper": (3e-4, 6e-4, 1.2e-3, 2.4e-3),
}
_DECAYS = {
    "smoke": (0.0, 0.3),
    "mini": (0.0, 0.03, 0.1, 0.3, 1.0),
    "paper": (0.0, 0.03, 0.1, 0.3),
}
_PLAIN_DECAYS = (0.0, 0.03, 0.1)  # more of it only costs there
MAIN: dict[str, Label] = {"study": "scale-free"}


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    specs: list[RunSpec] = []
    for name, base in networks(budget).items():
        labels: dict[str, Label] = {"study": "plain" if name == "pre-LN" else "scale-free", "network": name}
        axes = {
            "optimizer.lr": _RATES[budget],
            "decay.weight_decay": _PLAIN_DECAYS if name == "pre-LN" and budget == "mini" else _DECAYS[budget],
            "seed": list(seeds),
        }
        for spec in grid(base, axes, labels=labels):
            lr, wd = float(spec.labels["lr"]), float(spec.labels["wd"])
            own: dict[str, Label] = {
                "cell": f"LR {lr:g}, WD {wd:g}",
                "product": lr * wd,
                "decayed": "yes" if wd else "no",
            }
            specs.append(RunSpec(config=spec.config, labels={**spec.labels, **own}))
    return specs


def _finals(results: Results) -> pd.DataFrame:
    frame = results.final("train/loss")
    return frame[frame["status"] == "done"]


def _decayed(results: Results) -> pd.DataFrame:
    frame = _finals(results)
    return frame[frame["product"] > 0]


EXPERIMENT = Experiment(
    id="lr_lambda",
    title="The training loss over learning rate and weight decay",
    paper="own",
    question="Is the final training loss a function of learning rate times weight decay, with a valley along a "
    "constant product? And does the best cell with decay beat the best learning rate without?",
    seeds=seeds(mini=6),
    plan=_plan,
    charts=(
        Chart(
            id="product",
            title="Final training loss against learning rate x weight decay",
            data=_decayed,
            x="product",
            color="lr",
            palette="lr",
            panel="network",
            log_x=True,
            share_y=False,
            x_title="learning rate x weight decay",
            y_title="training loss (nats per token)",
            color_title="learning rate",
            caption="If the product alone decided, the curves would lie on each other; a valley of constant product "
            "has all their lowest points at one place. Mean over seeds with its 95 % interval.",
        ),
        Chart(
            id="decay",
            title="Final training loss against learning rate, by weight decay",
            data=_finals,
            x="lr",
            color="wd",
            palette="wd",
            panel="network",
            log_x=True,
            share_y=False,
            x_title="learning rate",
            y_title="training loss (nats per token)",
            color_title="weight decay",
            caption="What decay is worth where the learning rate is tuned too: compare the lowest points.",
        ),
    ),
    claims=(
        Claim(
            id="best-decay-moves-against-the-rate",
            sentence="With normalised branches, the best weight decay goes as the learning rate to a power between "
            "-1.5 and -0.5: the valley is one of constant product rather than of constant decay.",
            check=optimum_slope(LOSS, best="wd", over="lr", where=MAIN, low=-1.5, high=-0.5),
        ),
        Claim(
            id="best-against-best",
            sentence="With normalised branches, the best of all cells with decay ends with a lower training loss than "
            "the best learning rate without decay.",
            check=best_is_lower(LOSS, over="cell", this={**MAIN, "decayed": "yes"}, than={**MAIN, "decayed": "no"}),
            budgets=("mini",),
            untested={"paper": "three seeds are too few to choose the cells and to judge them"},
        ),
        Claim(
            id="not-in-the-plain-network",
            sentence="In the plain pre-LN network, the best learning rate without decay ends with a lower training "
            "loss than the best of all cells with decay.",
            check=best_is_lower(
                LOSS,
                over="cell",
                this={"study": "plain", "decayed": "no"},
                than={"study": "plain", "decayed": "yes"},
            ),
            budgets=("mini",),
            untested={"paper": "GPT-2 is the only network there"},
        ),
        Claim(
            id="interior-decay",
            sentence="With normalised branches, at the learning rates 6e-3 and 1.2e-2 a weight decay inside the range "
            "is better than none and than the largest.",
            check=all_of(
                *(interior_best(LOSS, over="wd", where={**MAIN, "lr": lr}) for lr in (6e-3, 1.2e-2)), corrected=True
            ),
            budgets=("mini",),
            untested={"paper": "the learning rates there are others"},
        ),
    ),
    recipe={
        "smoke": RECIPE_SMOKE,
        "mini": f"{RECIPE_MINI} LR 3e-3 to 4.8e-2 by factors of 2, weight decay 0, 0.03, 0.1, 0.3 and 1 (the plain "
        "network: 0, 0.03 and 0.1). Where best cells are compared, the first two seeds choose them and the other four "
        "are judged. Three earlier seeds, not judged here, gave best products of 0.0018, 0.0012 and 0.0009 at LR 6e-3, "
        "1.2e-2 and 3e-2, and best against best of -0.020. 240 runs.",
        "paper": f"{RECIPE_PAPER} LR 3e-4 to 2.4e-3, weight decay 0 to 0.3.",
    },
)
