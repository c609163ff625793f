"""Fig. 12: at which level does the training loss stay while the learning rate is large?"""

from __future__ import annotations

from collections.abc import Sequence

from decaylab.experiments.chart_data import curves
from decaylab.experiments.checks import trend
from decaylab.experiments.quantity import mean_over
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.why_weight_decay import recipes_resnet as resnets
from decaylab.studies.why_weight_decay.recipes_resnet import DECAYED, SPHERE, TRAINED

WITH_DECAY, ON_THE_SPHERE = "with weight decay", "on the sphere"


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    runs = resnets.trained(DECAYED[budget], seeds, network=WITH_DECAY)
    named = [s for s in resnets.trained(SPHERE[budget], seeds, network=ON_THE_SPHERE) if s.labels["rate"] != "other"]
    return runs + named


LATE = mean_over("train/loss", 0.4, 0.5, name="training cross-entropy")

EXPERIMENT = Experiment(
    id="fig12",
    version=2,
    title="Levels of loss stabilisation at three large learning rates",
    paper="Fig. 12",
    question="While the learning rate is large the training loss stays at a level. Is that level higher the larger the "
    "learning rate, with weight decay and on the sphere?",
    seeds=resnets.SEEDS,
    plan=_plan,
    charts=(
        *(
            Chart(
                id=name,
                title=f"({letter}) Training cross-entropy {words}",
                data=curves("train/loss", where=TRAINED | {"network": words}, start=0.01),
                color="lr",
                palette="lr",
                log_y=True,
                x_title="epoch",
                y_title="training cross-entropy (nats)",
                color_title="learning rate",
                rules=resnets.drop,
                caption="Of the whole training set, in evaluation mode. Mean over seeds with its 95 % interval.",
            )
            for letter, name, words in (("a", "decay", WITH_DECAY), ("b", "sphere", ON_THE_SPHERE))
        ),
    ),
    claims=tuple(
        Claim(
            id=f"level-rises-{name}",
            sentence=f"Residual networks {words}: at the end of the first phase the training loss is higher the larger "
            "the learning rate.",
            check=trend(LATE, over="lr", expect="rising", where={"network": words}),
        )
        for name, words in (("decay", WITH_DECAY), ("sphere", ON_THE_SPHERE))
    ),
    recipe={
        budget: f"The runs of Fig. 3: {resnets.decayed_recipes()[budget]} The runs of Fig. 2: "
        f"{resnets.sphere_recipes()[budget]}"
        for budget in resnets.SEEDS
    },
)
