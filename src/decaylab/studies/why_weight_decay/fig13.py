"""Fig. 13: does the gradient noise have the shape of the Hessian?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from decaylab.config.schema import VisionRun
from decaylab.experiments.chart_data import finals
from decaylab.experiments.checks import inside
from decaylab.experiments.quantity import final
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.schedules import Schedule
from decaylab.studies.why_weight_decay import recipes_resnet as resnets
from decaylab.studies.why_weight_decay.recipes_resnet import SPHERE

_KEY = "covariance/cosine/"
PARTS = {
    f"{_KEY}hessian": "H v",
    f"{_KEY}gauss_newton": "G v",
    f"{_KEY}residual": "E v",
}


def _config(budget: str) -> VisionRun:
    """One epoch with the largest named learning rate on the sphere; at the mini size on all training images."""
    recipe = SPHERE[budget]
    base = recipe.base
    return replace(
        base,
        data=base.data if budget == "smoke" else replace(base.data, train_size=None),
        optimizer=replace(base.optimizer, lr=recipe.named[2]),
        schedule=Schedule(),
        evaluation=replace(base.evaluation, every=1),
        probes=replace(base.probes, curvature=("covariance",), curvature_every=10),
        epochs=1,
    )


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    return [RunSpec(config=replace(_config(budget), seed=seed), labels={"seed": seed}) for seed in seeds]


EXPERIMENT = Experiment(
    id="fig13",
    version=2,
    title="Cosine similarity of the Hessian and the covariance of the gradient noise",
    paper="Fig. 13",
    question="For random directions v, how similar is S v, with S the covariance of single examples' gradients, to "
    "H v, G v and E v, where H = G + E is the Gauss-Newton split of the Hessian?",
    seeds=resnets.SEEDS,
    plan=_plan,
    charts=(
        Chart(
            id="cosine",
            title="Cosine similarity with S v",
            data=finals(*PARTS, names=PARTS, scale=1.0),
            x="metric",
            kind="bars",
            x_title="",
            y_title="cosine similarity",
            caption="H is the Hessian, G its Gauss-Newton part, E the rest. Twenty Gaussian directions a seed. "
            "Mean over seeds with its 95 % interval.",
        ),
    ),
    claims=(
        Claim(
            id="noise-is-like-the-gauss-newton-part",
            sentence="The cosine similarity of G v and S v is above 0.5.",
            check=inside(final(f"{_KEY}gauss_newton", name="cosine of G v and S v"), where={}, low=0.5),
        ),
        Claim(
            id="more-than-like-the-residual",
            sentence="The noise covariance is more like G than like E: the cosine with G v is higher by more than 0.2.",
            check=inside(
                final(f"{_KEY}gauss_newton", name="cosine of G v and S v")
                - final(f"{_KEY}residual", name="cosine of E v and S v"),
                where={},
                low=0.2,
            ),
        ),
        Claim(
            id="noise-is-like-the-hessian",
            sentence="The cosine similarity of H v and S v is above 0.",
            check=inside(final(f"{_KEY}hessian", name="cosine of H v and S v"), where={}, low=0.0),
        ),
    ),
    recipe={
        "smoke": "One epoch on 64 digits: proves that the path works.",
        "mini": "The scale-invariant network of Fig. 2 after one epoch on 1,297 digits (41 steps) with the largest of "
        "its three learning rates; 256 points for the matrices. Nothing was searched for here.",
        "paper": "Scale-invariant ResNet-18 on CIFAR-10, LR 0.005 on the unit sphere, after one epoch; 5,000 points.",
    },
)
