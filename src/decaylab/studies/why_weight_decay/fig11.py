"""Fig. 11: does weight decay hold the training loss at a level while the learning rate is large?"""

from __future__ import annotations

from decaylab.experiments.chart_data import curves
from decaylab.experiments.checks import higher, inside
from decaylab.experiments.quantity import mean_over
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.why_weight_decay import fig1

LATE = mean_over("train/loss", 0.4, 0.5, name="training cross-entropy")
WITHOUT = {"lr": "large", "wd": "off"}


def _claims() -> tuple[Claim, ...]:
    claims = []
    for network in ("VGG", "ResNet"):
        here = {"network": network}
        claims += [
            Claim(
                id=f"loss-levels-off-{network.lower()}",
                sentence=f"{network}: with a large learning rate and decay the training loss stays above 0.01 nats at "
                "the end of the first phase.",
                check=inside(LATE, where=here | fig1.BEST, low=0.01),
            ),
            Claim(
                id=f"goes-to-zero-without-{network.lower()}",
                sentence=f"{network}: without decay the training loss is below 0.01 nats by then.",
                check=inside(LATE, where=here | WITHOUT, high=0.01),
            ),
            Claim(
                id=f"higher-with-decay-{network.lower()}",
                sentence=f"{network}: at the end of the first phase the training loss is higher with decay.",
                check=higher(LATE, this=here | fig1.BEST, than=here | WITHOUT),
            ),
        ]
    return tuple(claims)


EXPERIMENT = Experiment(
    id="fig11",
    version=2,
    title="Loss stabilisation: training cross-entropy with and without weight decay",
    paper="Fig. 11",
    question="While the learning rate is large, does the training loss level off with weight decay and go to zero "
    "without?",
    seeds=fig1.EXPERIMENT.seeds,
    plan=fig1.EXPERIMENT.plan,
    charts=(
        Chart(
            id="train-loss",
            title="Training cross-entropy",
            data=curves("train/loss", setting="{lr} LR, decay {wd}"),
            color="setting",
            panel="panel",
            log_y=True,
            x_title="epoch",
            y_title="training cross-entropy (nats)",
            caption="On the whole training set in evaluation mode; mean over seeds with its 95 % interval.",
        ),
    ),
    claims=_claims(),
    recipe=fig1.EXPERIMENT.recipe,
)
