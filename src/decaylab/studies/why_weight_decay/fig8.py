"""Fig. 8: is a large learning rate flatter everywhere, or only where one looks at the noisy iterate?"""

from __future__ import annotations

from collections.abc import Sequence

from decaylab.experiments.chart_data import curves
from decaylab.experiments.checks import trend
from decaylab.experiments.quantity import Quantity, mean_over
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.why_weight_decay import recipes_resnet as resnets
from decaylab.studies.why_weight_decay.recipes_resnet import DECAYED, TRAINED


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    return resnets.trained(DECAYED[budget], seeds)


def _keys(budget: str) -> dict[str, str]:
    short, long = DECAYED[budget].averages
    return {
        "hessian/trace": "iterate",
        f"{short}/hessian/trace": "short average",
        f"{long}/hessian/trace": "long average",
    }


def _late_trace(place: str) -> Quantity:
    """The mean trace over the second half of the first phase, at one of the three places."""
    found = {}
    for budget in DECAYED:
        key = next(key for key, name in _keys(budget).items() if name == place)
        found[budget] = mean_over(key, 0.25, 0.5, name=f"trace of the Hessian at the {place}")
    return resnets.per_budget(found)


EXPERIMENT = Experiment(
    id="fig8",
    version=2,
    title="Trace of the Hessian at the iterate and at moving averages",
    paper="Fig. 8",
    question="The paper reports that the order by learning rate supports its conjecture at the iterate and at a short "
    "average of the weights, but not at a long one. Is that so?",
    seeds=resnets.SEEDS,
    plan=_plan,
    charts=(
        Chart(
            id="trace",
            title="Trace of the Hessian",
            data=resnets.data_per_budget(
                {budget: curves(*_keys(budget), where=TRAINED, names=_keys(budget), start=0.04) for budget in DECAYED}
            ),
            color="lr",
            palette="lr",
            panel="metric",
            log_y=True,
            x_title="epoch",
            y_title="trace of the Hessian",
            color_title="learning rate",
            rules=resnets.drop,
            caption="Exponential averages with coefficients 0.95 (short) and 0.999 (long) at the paper's size, 0.8 and "
            "0.98 at the mini size, whose runs have fewer steps. Mean over seeds with its 95 % interval.",
        ),
    ),
    claims=(
        *(
            Claim(
                id=f"order-holds-at-the-{place.replace(' ', '-')}",
                sentence=f"In the second half of the first phase the trace of the Hessian at the {place} is smaller "
                "the larger the learning rate.",
                check=trend(_late_trace(place), over="lr", expect="falling", where=TRAINED),
            )
            for place in ("iterate", "short average")
        ),
        Claim(
            id="order-is-reversed-at-the-long-average",
            sentence="At the long average it is the other way round, the paper's own discrepancy: the trace is larger "
            "the larger the learning rate.",
            check=trend(_late_trace("long average"), over="lr", expect="rising", where=TRAINED),
        ),
    ),
    recipe=resnets.decayed_recipes(),
)
