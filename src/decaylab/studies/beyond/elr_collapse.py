"""Collapse of loss curves: do runs with the same learning rate over weight norm have the same loss at every step?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from decaylab.experiments.chart_data import against_reference, curves
from decaylab.experiments.checks import all_of, equivalent, lower
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import final, mean_over
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.beyond.recipes import RECIPE_MINI, RECIPE_PAPER, RECIPE_SMOKE, networks, norm_twin, relabel, seeds

LOSS = final("train/loss", name="training loss")
# Without the warm-up, where losses are large and say nothing of decay.
CURVE = mean_over("train/loss", 0.1, 1.0, name="training loss")
DECAYS = (0.1, 0.3, 1.0)
_RATES = {
    "smoke": {"low": 6e-3},
    "mini": {"low": 6e-3, "middle": 1.2e-2, "high": 3e-2},
    "paper": {"low": 3e-4, "middle": 6e-4, "high": 1.2e-3},
}
RATES = ("low", "middle", "high")


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    base = next(iter(networks(budget).values()))
    specs: list[RunSpec] = []
    axes = {"optimizer.lr": _RATES[budget], "seed": list(seeds)}
    decayed = grid(replace(base, record_norms=True), {"decay.weight_decay": DECAYS, **axes}, labels={"arm": "decay"})
    specs += grid(base, {"decay.weight_decay": (0.0,), **axes}, labels={"arm": "none"})
    specs += decayed
    specs += [norm_twin(spec, arm="norms alone") for spec in decayed]
    return [one for spec in specs for one in relabel([spec], panel=f"LR {float(spec.labels['lr_value']):g}")]


def _cell(arm: str, rate: str, wd: float) -> dict[str, Label]:
    return {"arm": arm, "lr": rate, "wd": wd}


_CELLS = [(rate, wd) for rate in RATES for wd in DECAYS]

EXPERIMENT = Experiment(
    id="elr_collapse",
    title="Loss curves of runs with the same learning rate over weight norm",
    paper="own",
    question="Do runs that have the same learning rate over weight norm at every step have the same loss at every "
    "step, whatever the weight decay that made those norms? Each run with decay has a twin without decay that follows "
    "its norms, at three decays and three learning rates.",
    seeds=seeds(mini=6),
    plan=_plan,
    charts=(
        Chart(
            id="difference",
            title="Training loss minus that without decay, with decay and with its norms alone",
            data=against_reference("train/loss", reference={"arm": "none", "wd": 0.0}),
            x="step",
            color="wd",
            palette="wd",
            dash="arm",
            panel="panel",
            share_y=False,
            x_title="step",
            y_title="difference (nats per token)",
            color_title="weight decay",
            dash_title="what acts",
            caption="Paired by seed. Where the two lines of a colour lie on each other, the learning rate over the "
            "norm tells the whole curve.",
        ),
        Chart(
            id="effective-lr",
            title="Learning rate over weight norm, hidden matrices",
            data=curves("effective_lr/adaptive/matrix", start=0.02),
            x="step",
            color="wd",
            palette="wd",
            dash="arm",
            panel="panel",
            log_y=True,
            share_y=False,
            x_title="step",
            y_title="learning rate over norm",
            color_title="weight decay",
            dash_title="what acts",
        ),
    ),
    claims=(
        Claim(
            id="curves-collapse",
            sentence="At each of three learning rates and three decays, a run with decay and its norm twin differ by "
            "less than 0.01 nats, averaged over the last nine tenths of training.",
            check=all_of(
                *(
                    equivalent(CURVE, this=_cell("norms alone", rate, wd), that=_cell("decay", rate, wd), margin=0.01)
                    for rate, wd in _CELLS
                ),
                corrected=True,
            ),
        ),
        Claim(
            id="ends-collapse",
            sentence="They end within 0.01 nats of each other too.",
            check=all_of(
                *(
                    equivalent(LOSS, this=_cell("norms alone", rate, wd), that=_cell("decay", rate, wd), margin=0.01)
                    for rate, wd in _CELLS
                ),
                corrected=True,
            ),
        ),
        Claim(
            id="there-is-something-to-collapse",
            sentence="At the low learning rate, decay 0.3 ends more than 0.01 nats below no decay, so that the margin "
            "is smaller than the effect.",
            check=lower(LOSS, this=_cell("decay", "low", 0.3), than=_cell("none", "low", 0.0), by=0.01),
        ),
    ),
    recipe={
        "smoke": RECIPE_SMOKE,
        "mini": f"{RECIPE_MINI} Only the first of them; LR 6e-3, 1.2e-2 and 3e-2. Initial norms are not varied: the "
        "settings have one scale for matrices and embeddings together. 126 runs.",
        "paper": f"{RECIPE_PAPER} LR 3e-4, 6e-4 and 1.2e-3.",
    },
)
