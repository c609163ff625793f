"""Fig. 2: on the sphere, where norms cannot matter, does the noise of a large learning rate regularise?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from decaylab.config.schema import VisionRun
from decaylab.experiments.chart_data import curves, finals
from decaylab.experiments.checks import all_of, equal, interior_best, trend
from decaylab.experiments.quantity import final
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.why_weight_decay import recipes_resnet as resnets
from decaylab.studies.why_weight_decay.recipes_resnet import COPIES, RATES, SPHERE, TRAINED, Recipe

if TYPE_CHECKING:
    import pandas as pd

    from decaylab.experiments.results import Results

EVERY_STEP, EVERY_EPOCH, AT_THE_START = "every step", "every epoch", "at the start"
_NEVER = 10**9


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    recipe = SPHERE[budget]
    runs = resnets.trained(recipe, seeds, projected=EVERY_STEP)
    runs += resnets.fine_tuned_copies(recipe, runs)
    return runs + _other_projections(recipe, seeds)


def _other_projections(recipe: Recipe, seeds: Sequence[int]) -> list[RunSpec]:
    """The named learning rates with the projections of the authors' two programs."""
    data = recipe.base.data
    steps = -(-(data.train_size or 50_000) // recipe.base.batch_size)
    runs = []
    for words, every in ((EVERY_EPOCH, steps), (AT_THE_START, _NEVER)):
        base = replace(
            recipe.base, decay=replace(recipe.base.decay, options=(*recipe.base.decay.options, ("every", every)))
        )
        for spec in resnets.trained(replace(recipe, base=base, rates=recipe.named), seeds, projected=words):
            assert isinstance(spec.config, VisionRun)
            runs.append(RunSpec(config=replace(spec.config, snapshots_at=()), labels=spec.labels))
    return runs


def _projections(results: Results) -> pd.DataFrame:
    frame = finals("test/error", where=TRAINED, setting="LR {lr:g}")(results)
    return frame[frame["rate"] != "other"]


ERROR = final("test/error", name="test error")
MAIN = {**TRAINED, "projected": EVERY_STEP}
COPIED = {**COPIES, "projected": EVERY_STEP}

EXPERIMENT = Experiment(
    id="fig2",
    version=2,
    title="Training scale-invariant residual networks on the sphere",
    paper="Fig. 2",
    question="With the norm held fixed, weight decay aside, is there a best large learning rate, and does the point "
    "that gradient flow reaches from the iterate become flatter and better while the iterate itself only looks noisy?",
    seeds=resnets.SEEDS,
    plan=_plan,
    charts=(
        Chart(
            id="final-error",
            title="(a) Final test error against the learning rate of the first phase",
            data=finals("test/error", where=MAIN),
            x="lr",
            kind="points",
            log_x=True,
            x_title="learning rate of the first phase",
            y_title="test error (%)",
            caption="After the second phase, in which all learning rates are the same. Mean over seeds with its 95 % "
            "interval.",
        ),
        Chart(
            id="test-error",
            title="(b) Test error",
            data=curves("test/error", where=MAIN, start=0.02),
            color="lr",
            palette="lr",
            x_title="epoch",
            y_title="test error (%)",
            color_title="learning rate",
            rules=resnets.drop,
            caption="Mean over seeds with its 95 % interval.",
        ),
        Chart(
            id="trace-of-copies",
            title="(c) Trace of the Hessian after fine-tuning",
            data=finals("hessian/trace", where=COPIED),
            x="start",
            color="lr",
            palette="lr",
            log_y=True,
            x_title="epoch of the snapshot that is fine-tuned",
            y_title="trace of the Hessian",
            color_title="learning rate",
            caption="Each point is the end of a run of its own, an early-stopped gradient flow from the snapshot.",
        ),
        Chart(
            id="error-of-copies",
            title="(d) Test error after fine-tuning",
            data=finals("test/error", where=COPIED),
            x="start",
            color="lr",
            palette="lr",
            x_title="epoch of the snapshot that is fine-tuned",
            y_title="test error (%)",
            color_title="learning rate",
            caption="The same runs.",
        ),
        Chart(
            id="projection",
            title="What the moment of the projection changes",
            data=_projections,
            x="projected",
            kind="points",
            panel="setting",
            x_title="weights are projected",
            y_title="final test error (%)",
            caption="Every step is the paper's equation 3. One of the authors' programs projects once an epoch, "
            "the other puts the weights on the sphere once and lets the norm grow from there.",
        ),
    ),
    claims=(
        Claim(
            id="an-interior-rate-is-best",
            sentence="An interior learning rate of the first phase ends with the lowest test error (a U shape).",
            check=interior_best(ERROR, over="lr", where=MAIN),
        ),
        Claim(
            id="trace-of-copies-falls",
            sentence="The trace of the Hessian at the fine-tuned copies falls along training, for each of three "
            "learning rates.",
            check=all_of(
                *(
                    trend(
                        final("hessian/trace", name="trace of the Hessian"),
                        over="start",
                        expect="falling",
                        where=COPIED | {"rate": rate},
                        scale="rank",
                    )
                    for rate in RATES
                )
            ),
        ),
        Claim(
            id="error-of-copies-falls",
            sentence="The test error of the fine-tuned copies falls along training, for each of three learning rates.",
            check=all_of(
                *(
                    trend(ERROR, over="start", expect="falling", where=COPIED | {"rate": rate}, scale="rank")
                    for rate in RATES
                )
            ),
        ),
        Claim(
            id="larger-rate-is-flatter",
            sentence="The larger the learning rate of the first phase, the smaller the trace of the Hessian at the end "
            "of the second.",
            check=trend(final("hessian/trace", name="trace of the Hessian"), over="lr", expect="falling", where=MAIN),
        ),
        Claim(
            id="projection-once-an-epoch-is-the-same",
            sentence="Projecting once an epoch instead of after every step changes the final test error by less than "
            "one percentage point, at each of three learning rates.",
            check=all_of(
                *(
                    equal(
                        ERROR,
                        this={**TRAINED, "rate": rate, "projected": EVERY_EPOCH},
                        that={**TRAINED, "rate": rate, "projected": EVERY_STEP},
                        margin=1.0,
                    )
                    for rate in RATES
                )
            ),
        ),
        Claim(
            id="projection-at-the-start-only-is-the-same",
            sentence="Putting the weights on the sphere only at the start changes the final test error by less than "
            "one percentage point, at each of three learning rates.",
            check=all_of(
                *(
                    equal(
                        ERROR,
                        this={**TRAINED, "rate": rate, "projected": AT_THE_START},
                        that={**TRAINED, "rate": rate, "projected": EVERY_STEP},
                        margin=1.0,
                    )
                    for rate in RATES
                )
            ),
        ),
    ),
    recipe=resnets.sphere_recipes(),
)
