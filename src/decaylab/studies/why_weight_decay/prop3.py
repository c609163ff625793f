"""Proposition 3: is the variance of the gradient noise proportional to the training loss?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from decaylab.experiments.checks import all_of, inside
from decaylab.experiments.quantity import Quantity
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.experiments.statistics import slope
from decaylab.studies.why_weight_decay import recipes_resnet as resnets
from decaylab.studies.why_weight_decay.recipes_resnet import DECAYED

if TYPE_CHECKING:
    import pandas as pd

    from decaylab.experiments.results import Results

BINARY, ALL = "two classes", "ten classes"
_LOSS, _VARIANCE = "noise/loss", "noise/variance"


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    recipe = DECAYED[budget]
    base = replace(
        recipe.base,
        optimizer=replace(recipe.base.optimizer, lr=recipe.named[2]),
        averages=replace(recipe.base.averages, ema=()),
        probes=replace(recipe.base.probes, curvature=("gradient_noise",), curvature_every=1, curvature_at=("iterate",)),
    )
    return [
        RunSpec(
            config=replace(base, data=replace(base.data, parity=parity), seed=seed),
            labels={"classes": words, "seed": seed},
        )
        for words, parity in ((BINARY, True), (ALL, False))
        for seed in seeds
    ]


def _pairs(results: Results, run: str) -> list[tuple[float, float]]:
    """Return log10 of loss and variance at every evaluation but that of the untrained network."""
    loss, variance = results.curve(run, _LOSS), results.curve(run, _VARIANCE)
    return [
        (math.log10(x), math.log10(y))
        for step, x, y in zip(loss.steps, loss.values, variance.values, strict=True)
        if step > 0 and x > 0 and y > 0
    ]


def _quantity(name: str, unit: str, reduce: Callable[[list[tuple[float, float]]], float]) -> Quantity:
    def read(results: Results, run: str) -> float:
        pairs = _pairs(results, run)
        return reduce(pairs) if len(pairs) > 1 and not results.diverged(run) else math.nan

    return Quantity(name=name, unit=unit, read=read)


def _span(values: Sequence[float]) -> float:
    return max(values) - min(values)


LOSS_SPAN = _quantity("decades that the loss runs through", "decades", lambda p: _span([x for x, _ in p]))
RATIO_SPAN = _quantity(
    "decades that variance over loss runs through", "decades", lambda p: _span([y - x for x, y in p])
)
EXPONENT = _quantity(
    "exponent of the variance as a power of the loss", "", lambda p: slope([x for x, _ in p], [y for _, y in p])
)


def _scatter(results: Results) -> pd.DataFrame:
    frame = results.table(_LOSS, _VARIANCE)
    return frame[frame["step"] > 0]


def _ratio(results: Results) -> pd.DataFrame:
    frame = _scatter(results)
    return frame.assign(value=frame[_VARIANCE] / frame[_LOSS])


EXPERIMENT = Experiment(
    id="prop3",
    version=2,
    title="Variance of the gradient noise against the training loss",
    paper="Prop. 3",
    question="The paper's argument needs gradient noise whose variance is proportional to the training loss. It proves "
    "that for two classes and bounded gradients; is it so while a network trains, also for ten classes?",
    seeds=resnets.SEEDS,
    plan=_plan,
    charts=(
        Chart(
            id="scatter",
            title="Gradient-noise variance against training loss",
            data=_scatter,
            x=_LOSS,
            y=_VARIANCE,
            kind="points",
            over=None,
            panel="classes",
            log_x=True,
            log_y=True,
            x_title="training cross-entropy (nats)",
            y_title="variance of one example's gradient",
            caption="Each point is one evaluation of one run, both phases; proportional means a slope of one. For one "
            "example of two classes the derivative by the output is 1 - exp(-loss). Its square is never above the "
            "loss, which is the upper half of the proof, but for a small loss it is about the loss squared: the lower "
            "half needs part of the loss to sit in examples that are not fitted yet.",
        ),
        Chart(
            id="ratio",
            title="Variance over loss along training",
            data=_ratio,
            color="classes",
            log_y=True,
            x_title="epoch",
            y_title="variance over loss",
            rules=resnets.drop,
            caption="Mean over seeds with its 95 % interval. The proposition assumes weights of bounded norm; weight "
            "decay shrinks them at first, and gradients grow as weights shrink.",
        ),
    ),
    claims=tuple(
        claim
        for words, name in ((BINARY, "binary"), (ALL, "ten-classes"))
        for claim in (
            Claim(
                id=f"ratio-in-a-band-{name}",
                sentence=f"For {words}, variance over loss stays within a factor of ten while the loss runs through "
                "two decades or more.",
                check=all_of(
                    inside(LOSS_SPAN, where={"classes": words}, low=2.0),
                    inside(RATIO_SPAN, where={"classes": words}, high=1.0),
                ),
            ),
            Claim(
                id=f"proportional-{name}",
                sentence=f"For {words}, the variance grows with the loss to a power between 0.8 and 1.2.",
                check=inside(EXPONENT, where={"classes": words}, low=0.8, high=1.2),
            ),
        )
    ),
    recipe={
        "smoke": "Two epochs on 64 digits: proves that the path works.",
        "mini": "The runs of Fig. 3 with the largest learning rate, on the ten digits and on odd against even; the "
        "variance is exact, from the gradients of all 256 training examples one by one, every ten epochs. The limits "
        "of the claims were fixed before any run.",
        "paper": "The runs of Fig. 3 with LR 0.2, on the ten classes of CIFAR-10 and on odd against even classes; "
        "the variance is exact, on 5,000 training points, every two epochs.",
    },
)
