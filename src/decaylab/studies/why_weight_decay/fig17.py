"""Fig. 17: are gradients larger and noisier where weight decay keeps the weights small?"""

from __future__ import annotations

from collections.abc import Sequence

from decaylab.experiments.chart_data import curves
from decaylab.experiments.checks import all_of, higher, lower
from decaylab.experiments.quantity import mean_over
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.why_weight_decay.recipes_gpt2 import COSINE_DECAYS, RECIPES, SEEDS, main_runs, relabelled

COSINE: dict[str, Label] = {"schedule": "cosine"}
# The matrices are what decays at every budget; clipping bends the norm of the whole gradient but not its share in them.
_LATE = (0.5, 1.0)
WEIGHTS = mean_over("weights/norm/matrix", *_LATE, name="norm of the matrices")
GRADIENTS = mean_over("noise/second_moment/matrix", *_LATE, name="mean squared gradient of the matrices")
VARIANCE = mean_over("noise/variance/matrix", *_LATE, name="gradient variance of the matrices")


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    runs = [s for s in main_runs(budget, seeds) if s.labels["study"] == "main"]
    return relabelled(runs, "schedule", "wd", "seed", "panel")


def _with_decay(quantity: str) -> Claim:
    names = {"norm": ("gradient-norm", "squared norm", GRADIENTS), "noise": ("gradient-noise", "variance", VARIANCE)}
    identity, words, read = names[quantity]
    return Claim(
        id=f"{identity}-is-higher-where-weights-are-smaller",
        sentence=f"In the second half of training with a cosine learning rate, decay 0.1 and 0.3 have smaller matrices "
        f"and a higher {words} of single sequences' gradients in them than no decay.",
        check=all_of(
            *(lower(WEIGHTS, this=COSINE | {"wd": wd}, than=COSINE | {"wd": 0.0}) for wd in COSINE_DECAYS[1:]),
            *(higher(read, this=COSINE | {"wd": wd}, than=COSINE | {"wd": 0.0}) for wd in COSINE_DECAYS[1:]),
        ),
    )


def _chart(id: str, title: str, key: str, y_title: str, caption: str) -> Chart:
    return Chart(
        id=id,
        title=title,
        data=curves(key),
        x="step",
        color="wd",
        palette="wd",
        panel="panel",
        log_y=True,
        x_title="step",
        y_title=y_title,
        color_title="weight decay",
        caption=caption,
    )


EXPERIMENT = Experiment(
    id="fig17",
    title="Gradient variance, gradient norm and weight norm",
    paper="Fig. 17",
    question="Is the gradient larger where the weights are smaller, as it is for a scale-invariant loss?",
    seeds=SEEDS,
    plan=_plan,
    charts=(
        _chart(
            "variance",
            "Gradient variance",
            "noise/variance",
            "tr S",
            "Trace of the covariance of single sequences' gradients, exact over a fixed set of training sequences.",
        ),
        _chart(
            "gradient",
            "Gradient norm",
            "gradients/norm",
            "norm",
            "Norm of the gradient that the optimizer applied: mean over the batch, clipped at 1.",
        ),
        _chart("weights", "Weight norm", "weights/norm", "norm", "All weights together."),
    ),
    claims=(_with_decay("norm"), _with_decay("noise")),
    recipe={
        **RECIPES,
        "mini": RECIPES["mini"] + " Here only the first. Gradients of 256 training sequences one by one.",
        "paper": RECIPES["paper"] + " Gradients of 512 training sequences one by one, every 2000 steps; the paper does "
        "not say how it estimates the variance.",
    },
)
