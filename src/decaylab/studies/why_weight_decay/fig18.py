"""Fig. 18: how much of the difference between weight decays is noise that averaging the weights removes?"""

from __future__ import annotations

from collections.abc import Sequence

from decaylab.experiments.chart_data import curves
from decaylab.experiments.checks import all_of, equal, higher, lower
from decaylab.experiments.quantity import Quantity, at, final
from decaylab.experiments.results import Results
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.why_weight_decay.fig5 import with_copies
from decaylab.studies.why_weight_decay.recipes_gpt2 import RECIPES, SEEDS

AVERAGE = "ema0.99/train/loss"
# Where the averages are compared with fine-tuned copies, in percent of training: the snapshot nearest to half way.
_COMPARED = {"smoke": 100, "mini": 50, "paper": 40}
TRAINED: dict[str, Label] = {"phase": "trained"}
COSINE: dict[str, Label] = TRAINED | {"schedule": "cosine"}
CONSTANT: dict[str, Label] = TRAINED | {"schedule": "constant"}
GAIN = at("train/loss", 0.5, name="training loss") - at(AVERAGE, 0.5, name="that of the average")


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    names = ("phase", "schedule", "wd", "seed", "panel")
    runs = [s for s in with_copies(budget, seeds) if s.labels["study"] == "main"]
    copies = {"phase": "fine-tuned", "schedule": "cosine", "share": _COMPARED[budget]}
    chosen = [s for s in runs if s.labels["phase"] == "trained" or copies.items() <= s.labels.items()]
    return [RunSpec(config=s.config, labels={name: s.labels[name] for name in names}) for s in chosen]


def _read(results: Results, run: str) -> float:
    """Loss of the average where the learning rate is constant, of the iterate where it decays."""
    constant = results.runs.loc[run, "schedule"] == "constant"
    return final(AVERAGE if constant else "train/loss").read(results, run)


def _read_copies(results: Results, run: str) -> float:
    """Final loss of a fine-tuned copy, and of the average at the same point for a run that is trained."""
    copied = results.runs.loc[run, "phase"] == "fine-tuned"
    quantity = final("train/loss") if copied else at(AVERAGE, _COMPARED[results.budget] / 100)
    return quantity.read(results, run)


DECAYED_OR_AVERAGED = Quantity(
    name="final training loss, averaged where the learning rate is constant", unit="nats", read=_read
)
TUNED_OR_AVERAGED = Quantity(
    name="training loss from about half of training, averaged or fine-tuned", unit="nats", read=_read_copies
)


EXPERIMENT = Experiment(
    id="fig18",
    title="Weight averaging against a falling learning rate",
    paper="Fig. 18",
    question="Does averaging the weights close the gap between weight decays, and can it replace a falling learning "
    "rate or fine-tuning with a tiny one?",
    seeds=SEEDS,
    plan=_plan,
    charts=(
        Chart(
            id="average",
            title="Training loss of the weights and of their average",
            data=curves(
                "train/loss",
                AVERAGE,
                where={"phase": "trained"},
                names={"train/loss": "weights", AVERAGE: "average"},
                start=0.1,
            ),
            x="step",
            color="wd",
            palette="wd",
            dash="metric",
            panel="panel",
            x_title="step",
            y_title="training loss (nats per token)",
            color_title="weight decay",
            dash_title="of",
            caption="Exponential moving average with coefficient 0.99. Mean over seeds with its 95 % interval.",
        ),
        Chart(
            id="uniform",
            title="Training loss of the plain mean of the second half's weights",
            data=curves("uniform/train/loss", where={"phase": "trained"}, start=0.55),
            x="step",
            color="wd",
            palette="wd",
            panel="panel",
            x_title="step",
            y_title="training loss (nats per token)",
            color_title="weight decay",
            caption="Mean of all iterates since half of training.",
        ),
    ),
    claims=(
        Claim(
            id="averaging-shrinks-the-gap",
            sentence="At half of training averaging lowers the loss more with decay 0.3 than without, with a cosine "
            "and with a constant learning rate: the gap between them shrinks.",
            check=all_of(
                higher(GAIN, this=COSINE | {"wd": 0.3}, than=COSINE | {"wd": 0.0}),
                higher(GAIN, this=CONSTANT | {"wd": 0.3}, than=CONSTANT | {"wd": 0.0}),
            ),
        ),
        Claim(
            id="close-to-lr-decay",
            sentence="Without decay, the average of the weights at a constant learning rate ends within 0.03 nats of "
            "the weights with a cosine one.",
            check=equal(DECAYED_OR_AVERAGED, this=CONSTANT | {"wd": 0.0}, that=COSINE | {"wd": 0.0}, margin=0.03),
        ),
        Claim(
            id="behind-tiny-lr",
            sentence="From about half of training, fine-tuning with a tiny learning rate reaches a lower loss than "
            "averaging does.",
            check=all_of(
                *(
                    lower(
                        TUNED_OR_AVERAGED,
                        this={"phase": "fine-tuned", "wd": wd},
                        than=COSINE | {"wd": wd},
                    )
                    for wd in (0.0, 0.3)
                )
            ),
        ),
    ),
    recipe={
        **RECIPES,
        "mini": RECIPES["mini"] + " Here only the first, with an exponential moving average (0.99) and the plain mean "
        "of the second half.",
        "paper": RECIPES["paper"] + " Averages: exponential with coefficient 0.99, as in the authors' code (the paper "
        "does not say which), and the plain mean of the second half; the copies are those of step 20,000.",
    },
)
