"""Fig. 3: with weight decay, is it the norm of the weights that decides, or the noise of the learning rate?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from decaylab.experiments.chart_data import curves, finals
from decaylab.experiments.checks import all_of, equal, inside, lower, trend
from decaylab.experiments.quantity import at, final, percent
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.why_weight_decay import recipes_resnet as resnets
from decaylab.studies.why_weight_decay.recipes_resnet import COPIES, DECAYED, RATES, TRAINED

# An hour of one GPU: the paper's network, rates and decay in a fifth of its epochs, with fewer and shorter copies.
_PAPER = DECAYED["paper"]
GPU_HOUR = replace(
    _PAPER,
    base=replace(
        _PAPER.base,
        probes=replace(
            _PAPER.base.probes,
            curvature=("hessian_trace",),
            curvature_every=10,
            curvature_points=1000,
            curvature_at=("iterate",),
        ),
        epochs=40,
    ),
    starts=(2, 6, 12, 20),
    epochs=8,
)
RECIPES = {**DECAYED, "gpu-hour": GPU_HOUR}


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    runs = resnets.trained(RECIPES[budget], seeds)
    return runs + resnets.fine_tuned_copies(RECIPES[budget], runs)


ERROR = final("test/error", name="test error")
TRACE = final("hessian/trace", name="trace of the Hessian")
SMALL, LARGE = {**TRAINED, "rate": "small"}, {**TRAINED, "rate": "large"}

EXPERIMENT = Experiment(
    id="fig3",
    version=2,
    title="Training residual networks with weight decay and three large learning rates",
    paper="Fig. 3",
    question="The same weight decay with different large learning rates: do networks of the same norm generalise "
    "differently, and does the point behind the noisy iterate become flatter and better along training?",
    seeds={**resnets.SEEDS, "gpu-hour": (0, 1, 2)},
    plan=_plan,
    charts=(
        Chart(
            id="norm",
            title="(a) Norm of the weights",
            data=curves("weights/norm", where=TRAINED),
            color="lr",
            palette="lr",
            x_title="epoch",
            y_title="norm of all weights",
            color_title="learning rate",
            rules=resnets.drop,
            caption="Mean over seeds with its 95 % interval.",
        ),
        Chart(
            id="test-error",
            title="(b) Test error of the iterate and of a moving average",
            data=resnets.data_per_budget(
                {
                    budget: curves(
                        "test/error",
                        f"{recipe.averages[1]}/test/error",
                        where=TRAINED,
                        names={"test/error": "iterate", f"{recipe.averages[1]}/test/error": "long average"},
                        start=0.04,
                    )
                    for budget, recipe in RECIPES.items()
                }
            ),
            color="lr",
            palette="lr",
            panel="metric",
            x_title="epoch",
            y_title="test error (%)",
            color_title="learning rate",
            rules=resnets.drop,
            y_domain=(0, 40),
            caption="The long average is the exponential one with coefficient 0.999 at the paper's size and 0.98 at "
            "the mini size, whose runs have fewer steps. Statistics of BatchNorm are computed anew for it.",
        ),
        Chart(
            id="trace-of-copies",
            title="(c) Trace of the Hessian after fine-tuning",
            data=finals("hessian/trace", where=COPIES),
            x="start",
            color="lr",
            palette="lr",
            log_y=True,
            x_title="epoch of the snapshot that is fine-tuned",
            y_title="trace of the Hessian",
            color_title="learning rate",
            caption="Each point is the end of a run of its own without weight decay, an early-stopped gradient flow.",
        ),
        Chart(
            id="error-of-copies",
            title="(d) Test error after fine-tuning",
            data=finals("test/error", where=COPIES),
            x="start",
            color="lr",
            palette="lr",
            x_title="epoch of the snapshot that is fine-tuned",
            y_title="test error (%)",
            color_title="learning rate",
            caption="The same runs.",
        ),
    ),
    claims=(
        Claim(
            id="norms-end-equal",
            sentence="After the second phase the norms of the largest and the smallest learning rate differ by less "
            "than 5 %.",
            check=equal(percent(final("weights/norm", name="norm of the weights")), this=LARGE, that=SMALL, margin=5.0),
            budgets=("paper",),
            untested={
                "mini": "the second phase of the mini recipe is a sixth of a decay timescale (0.6 at the paper's), "
                "so norms have no time to meet",
                "gpu-hour": "the second phase of the recipe is an eighth of a decay timescale (0.6 at the paper's), so "
                "norms have no time to meet",
            },
        ),
        Claim(
            id="test-errors-differ",
            sentence="The larger the learning rate of the first phase, the lower the test error at the end.",
            check=trend(ERROR, over="lr", expect="falling", where=TRAINED),
        ),
        Claim(
            id="average-beats-the-iterate",
            sentence="At the end of the first phase with the largest learning rate, the long average has a lower test "
            "error than the iterate.",
            check=inside(
                resnets.per_budget(
                    {
                        budget: at(f"{recipe.averages[1]}/test/error", 0.5, name="test error of the long average")
                        - at("test/error", 0.5, name="that of the iterate")
                        for budget, recipe in RECIPES.items()
                    }
                ),
                where=LARGE,
                high=0.0,
            ),
        ),
        Claim(
            id="trace-of-copies-falls",
            sentence="The trace of the Hessian at the fine-tuned copies falls along training, for each learning rate.",
            check=all_of(
                *(
                    trend(TRACE, over="start", expect="falling", where=COPIES | {"rate": rate}, scale="rank")
                    for rate in RATES
                )
            ),
        ),
        Claim(
            id="error-of-copies-falls",
            sentence="The test error of the fine-tuned copies falls along training, for each learning rate.",
            check=all_of(
                *(
                    trend(ERROR, over="start", expect="falling", where=COPIES | {"rate": rate}, scale="rank")
                    for rate in RATES
                )
            ),
        ),
        Claim(
            id="largest-rate-is-flattest",
            sentence="The largest learning rate ends with a smaller trace of the Hessian than the other two.",
            check=all_of(*(lower(TRACE, this=LARGE, than={**TRAINED, "rate": rate}) for rate in RATES[:2])),
        ),
    ),
    recipe={
        **resnets.decayed_recipes(),
        "gpu-hour": "The paper's ResNet-18 on CIFAR-10 with its rates, decay and averages, for 40 epochs with the "
        "drop at 20. Copies of epochs 2, 6, 12 and 20 for 8 epochs; traces on 1,000 training points, for the iterate "
        "at the start, half way and at the end. Three seeds. Nothing was searched.",
    },
)
