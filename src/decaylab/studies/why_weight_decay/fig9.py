"""Fig. 9: is the norm of the Jacobian what a large learning rate regularises, as the paper came to suggest?"""

from __future__ import annotations

from collections.abc import Sequence

from decaylab.experiments.chart_data import curves, finals
from decaylab.experiments.checks import all_of, trend
from decaylab.experiments.quantity import Quantity, final, mean_over
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.why_weight_decay import fig3
from decaylab.studies.why_weight_decay import recipes_resnet as resnets
from decaylab.studies.why_weight_decay.recipes_resnet import COPIES, DECAYED, RATES, TRAINED


def _plan(budget: str, seeds: Sequence[int]) -> Sequence[RunSpec]:
    return fig3.EXPERIMENT.plan(budget, seeds)


def _of_the_average(key: str, name: str) -> Quantity:
    """The mean over the second half of the first phase, at the long average."""
    return resnets.per_budget(
        {b: mean_over(f"{recipe.averages[1]}/{key}", 0.25, 0.5, name=name) for b, recipe in DECAYED.items()}
    )


EXPERIMENT = Experiment(
    id="fig9",
    version=2,
    title="Norm of the Jacobian of the outputs with respect to the weights",
    paper="Fig. 9",
    question="Where the trace of the Hessian does not fit the paper's conjecture (Fig. 8), does the Frobenius norm of "
    "the Jacobian, which does not depend on the loss, fit it?",
    seeds=resnets.SEEDS,
    plan=_plan,
    charts=(
        Chart(
            id="copies",
            title="(a) Jacobian norm after fine-tuning",
            data=finals("jacobian/frobenius", where=COPIES),
            x="start",
            color="lr",
            palette="lr",
            x_title="epoch of the snapshot that is fine-tuned",
            y_title="Frobenius norm of the Jacobian",
            color_title="learning rate",
            caption="The fine-tuned copies of Fig. 3.",
        ),
        Chart(
            id="average",
            title="(b) Jacobian norm at the long average",
            data=resnets.data_per_budget(
                {
                    budget: curves(f"{recipe.averages[1]}/jacobian/frobenius", where=TRAINED, start=0.04)
                    for budget, recipe in DECAYED.items()
                }
            ),
            color="lr",
            palette="lr",
            x_title="epoch",
            y_title="Frobenius norm of the Jacobian",
            color_title="learning rate",
            rules=resnets.drop,
            caption="Exponential average with coefficient 0.999 at the paper's size, 0.98 at the mini size.",
        ),
        Chart(
            id="average-loss",
            title="Training loss at the long average",
            data=resnets.data_per_budget(
                {
                    budget: curves(f"{recipe.averages[1]}/train/loss", where=TRAINED, start=0.04)
                    for budget, recipe in DECAYED.items()
                }
            ),
            color="lr",
            palette="lr",
            log_y=True,
            x_title="epoch",
            y_title="training cross-entropy (nats)",
            color_title="learning rate",
            rules=resnets.drop,
            caption="The other side of the trade that the paper expects.",
        ),
    ),
    claims=(
        Claim(
            id="falls-along-copies",
            sentence="The Jacobian norm at the fine-tuned copies falls along training, for each learning rate.",
            check=all_of(
                *(
                    trend(
                        final("jacobian/frobenius", name="Jacobian norm"),
                        over="start",
                        expect="falling",
                        where=COPIES | {"rate": rate},
                        scale="rank",
                    )
                    for rate in RATES
                )
            ),
        ),
        Claim(
            id="average-has-smaller-norm",
            sentence="In the second half of the first phase the Jacobian norm at the long average is smaller the "
            "larger the learning rate.",
            check=trend(
                _of_the_average("jacobian/frobenius", "Jacobian norm at the long average"),
                over="lr",
                expect="falling",
                where=TRAINED,
            ),
        ),
        Claim(
            id="average-has-higher-loss",
            sentence="There the training loss at the long average is higher the larger the learning rate.",
            check=trend(
                _of_the_average("train/loss", "training loss at the long average"),
                over="lr",
                expect="rising",
                where=TRAINED,
            ),
        ),
    ),
    recipe=resnets.decayed_recipes(),
)
