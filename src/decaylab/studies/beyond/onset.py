"""Onset of the effect: from which width, length and normalisation on does weight decay lower the training loss?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from decaylab.experiments.checks import all_of, higher, lower
from decaylab.experiments.effects import effect_trend
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import final
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.beyond.recipes import RECIPE_MINI, RECIPE_PAPER, RECIPE_SMOKE, networks, of_length, seeds

if TYPE_CHECKING:
    import pandas as pd

    from decaylab.experiments.results import Results

LOSS = final("train/loss", name="training loss")
WIDTHS = {"smoke": (8, 16), "mini": (16, 32, 64), "paper": (256, 512, 768)}
LENGTHS = {
    "smoke": {"short": 10, "long": 20},
    "mini": {"short": 1000, "long": 4000},
    "paper": {"short": 12_500, "long": 50_000},
}
RATES = {
    "smoke": {"low": 6e-3},
    "mini": {"low": 6e-3, "high": 1.2e-2},
    "paper": {"low": 6e-4, "high": 1.2e-3},
}
WD = 0.1
FREE: dict[str, Label] = {"study": "scale-free"}
PLAIN: dict[str, Label] = {"study": "plain"}


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    specs: list[RunSpec] = []
    for name, base in networks(budget).items():
        study = "plain" if name == "pre-LN" else "scale-free"
        for width in WIDTHS[budget]:
            heads = width // 64 if budget == "paper" else base.model.num_heads
            sized = replace(base, model=replace(base.model, width=width, num_heads=heads))
            for length, steps in LENGTHS[budget].items():
                axes = {"optimizer.lr": RATES[budget], "decay.weight_decay": (0.0, WD), "seed": list(seeds)}
                labels: dict[str, Label] = {
                    "study": study,
                    "network": name,
                    "width": width,
                    "length": length,
                    "steps": steps,
                }
                specs += grid(of_length(sized, steps), axes, labels=labels)
    return specs


def _effect(results: Results) -> pd.DataFrame:
    """Return the final loss with decay minus that without, by width and seed."""
    frame = results.final("train/loss")
    frame = frame[frame["status"] == "done"]
    keys = ["network", "width", "length", "steps", "lr", "lr_value", "seed"]
    with_decay, without = frame[frame["wd"] > 0], frame[frame["wd"] == 0]
    joined = with_decay.merge(without[[*keys, "value"]], on=keys, suffixes=("", "_without"))
    joined["value"] = joined["value"] - joined["value_without"]
    joined["setting"] = [
        f"{steps} steps, LR {lr:g}" for steps, lr in zip(joined["steps"], joined["lr_value"].astype(float), strict=True)
    ]
    return joined


def _at(study: dict[str, Label], length: str, rate: str) -> dict[str, Label]:
    return {**study, "length": length, "lr": rate}


EXPERIMENT = Experiment(
    id="onset",
    title="Where weight decay begins to lower the training loss",
    paper="own",
    question="From which width, length of training, learning rate and normalisation on does weight decay 0.1 end with "
    "a lower training loss than none?",
    seeds=seeds(mini=4),
    plan=_plan,
    charts=(
        Chart(
            id="effect",
            title=f"Final training loss with weight decay {WD:g} minus that without",
            data=_effect,
            x="width",
            color="setting",
            panel="network",
            log_x=True,
            x_title="width",
            y_title="difference (nats per token)",
            color_title="",
            caption="Paired by seed. Below zero, decay ends lower. Mean over seeds with its 95 % interval.",
        ),
    ),
    claims=(
        Claim(
            id="lower-at-every-width",
            sentence="With normalised branches, long training and the low learning rate, weight decay 0.1 ends with a "
            "lower training loss at each width.",
            check=all_of(
                *(
                    lower(
                        LOSS,
                        this={**_at(FREE, "long", "low"), "width": width, "wd": WD},
                        than={**_at(FREE, "long", "low"), "width": width, "wd": 0.0},
                    )
                    for width in WIDTHS["mini"]
                ),
                corrected=True,
            ),
            budgets=("mini",),
            untested={"paper": "the widths there are others"},
        ),
        Claim(
            id="more-with-width",
            sentence="With normalised branches, long training and the low learning rate, what weight decay takes off "
            "the training loss grows with the width.",
            check=effect_trend(
                LOSS,
                over="width",
                this={**_at(FREE, "long", "low"), "wd": WD},
                than={**_at(FREE, "long", "low"), "wd": 0.0},
                expect="falling",
            ),
        ),
        Claim(
            id="more-with-length",
            sentence="With normalised branches, width 32 and the low learning rate, what weight decay takes off the "
            "training loss grows from the short to the long training.",
            check=effect_trend(
                LOSS,
                over="steps",
                this={**FREE, "lr": "low", "width": 32, "wd": WD},
                than={**FREE, "lr": "low", "width": 32, "wd": 0.0},
                expect="falling",
            ),
            budgets=("mini",),
            untested={"paper": "the widths there are others"},
        ),
        Claim(
            id="not-in-the-plain-network",
            sentence="In the plain pre-LN network, weight decay 0.1 does not end lower at any width: at the largest, "
            "with long training and the high learning rate, it ends higher.",
            check=higher(
                LOSS,
                this={**_at(PLAIN, "long", "high"), "width": 64, "wd": WD},
                than={**_at(PLAIN, "long", "high"), "width": 64, "wd": 0.0},
            ),
            budgets=("mini",),
            untested={"paper": "GPT-2 is the only network there"},
        ),
    ),
    recipe={
        "smoke": RECIPE_SMOKE,
        "mini": f"{RECIPE_MINI} Widths 16, 32 and 64, 1000 and 4000 steps, LR 6e-3 and 1.2e-2. Nothing was searched. "
        "192 runs.",
        "paper": f"{RECIPE_PAPER} Widths 256, 512 and 768 with heads of 64, 12,500 and 50,000 steps.",
    },
)
