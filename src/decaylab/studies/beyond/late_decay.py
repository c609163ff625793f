"""Late training: does the ratio of gradient to weight rise when the learning rate falls, and does it matter?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from decaylab.config.schema import LanguageRun
from decaylab.experiments.chart_data import finals
from decaylab.experiments.checks import inside, lower, not_worse
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import Quantity, final, log10, mean_over
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.schedules import Schedule
from decaylab.studies.beyond.recipes import RECIPE_MINI, RECIPE_PAPER, RECIPE_SMOKE, networks, seeds

if TYPE_CHECKING:
    import pandas as pd

    from decaylab.experiments.results import Results

LOSS = final("train/loss", name="training loss")
GRADIENT, WEIGHT = "gradients/norm/matrix", "weights/norm/matrix"


def _ratio_over(start: float, stop: float) -> Quantity:
    return mean_over(GRADIENT, start, stop, name="gradient norm") / mean_over(WEIGHT, start, stop, name="weight norm")


RISE = log10(
    replace(_ratio_over(0.9, 1.0) / _ratio_over(0.4, 0.5), name="rise of gradient over weight norm, late over middle")
)
RULES = {"AdamW": "decoupled", "AdamC": "corrected", "decay to zero": "decoupled"}
TENTH, ZERO = "cosine to a tenth", "linear to zero"
WD = 0.3


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    base = next(iter(networks(budget).values()))
    base = replace(base, optimizer=replace(base.optimizer, clip=None))
    specs: list[RunSpec] = []
    for falls in (TENTH, ZERO):
        run = base
        if falls == ZERO:
            run = replace(base, schedule=Schedule(kind="linear", warmup_steps=base.schedule.warmup_steps))
        specs += _of(run, "no decay", falls, "off", seeds)
        for rule in RULES:
            specs += _of(run, rule, falls, "off", seeds)
    clipped = replace(base, optimizer=replace(base.optimizer, clip=1.0))
    return specs + _of(clipped, "AdamW", TENTH, "on", seeds)


def _of(run: LanguageRun, rule: str, falls: str, clip: str, seeds: Sequence[int]) -> list[RunSpec]:
    if rule in RULES:
        decay = replace(run.decay, rule=RULES[rule], weight_decay=WD)
        if rule == "decay to zero":
            decay = replace(decay, options=(("schedule", "cosine_to_zero"), ("total_steps", run.steps)))
        run = replace(run, decay=decay)
    labels: dict[str, Label] = {"rule": rule, "falls": falls, "clip": clip}
    return list(grid(run, {"seed": list(seeds)}, labels=labels))


def _ratio(results: Results) -> pd.DataFrame:
    frame = results.table(GRADIENT, WEIGHT)
    frame = frame[(frame["clip"] == "off") & (frame["fraction"] >= 0.05)].copy()
    frame["value"] = frame[GRADIENT] / frame[WEIGHT]
    frame["place"] = (frame["fraction"] * 20).round() / 20  # gradients of single batches are noisy
    return frame.groupby(["rule", "falls", "seed", "place"])["value"].mean().reset_index()


def _at(rule: str, falls: str = TENTH, clip: str = "off") -> dict[str, Label]:
    return {"rule": rule, "falls": falls, "clip": clip}


EXPERIMENT = Experiment(
    id="late_decay",
    title="Gradient over weight norm late in training, and what flattens it",
    paper="own",
    question="At the equilibrium of weight decay the ratio of gradient to weight of a normalised layer goes as the "
    "square root of lambda over the learning rate (Defazio 2025), so it rises when the learning rate falls. Does it "
    "here, do AdamC and a decay that falls to zero flatten it, and do they end lower for it?",
    seeds=seeds(mini=8),
    plan=_plan,
    charts=(
        Chart(
            id="ratio",
            title="Norm of the gradients over norm of the weights, hidden matrices",
            data=_ratio,
            x="place",
            color="rule",
            panel="falls",
            log_y=True,
            x_title="fraction of training",
            y_title="gradient norm / weight norm",
            color_title="",
            caption="Means over twentieths of training, without clipping. Mean over seeds with its 95 % interval.",
        ),
        Chart(
            id="loss",
            title="Final training loss",
            data=finals("train/loss", where={"clip": "off"}),
            x="rule",
            kind="points",
            color="rule",
            panel="falls",
            share_y=False,
            x_title="",
            y_title="training loss (nats per token)",
            caption="Mean over seeds with its 95 % interval.",
        ),
    ),
    claims=(
        Claim(
            id="ratio-rises",
            sentence="With AdamW's decay 0.3 and a cosine to a tenth, gradient over weight norm is higher in the last "
            "tenth of training than in its middle.",
            check=inside(RISE, where=_at("AdamW"), low=0.0),
        ),
        Claim(
            id="corrected-is-flatter",
            sentence="With AdamC it rises less.",
            check=lower(RISE, this=_at("AdamC"), than=_at("AdamW")),
        ),
        Claim(
            id="decay-to-zero-is-flatter",
            sentence="With a decay that falls to zero it rises less.",
            check=lower(RISE, this=_at("decay to zero"), than=_at("AdamW")),
        ),
        Claim(
            id="flattening-helps",
            sentence="AdamC ends with a lower training loss than AdamW's decay, with a cosine to a tenth.",
            check=lower(LOSS, this=_at("AdamC"), than=_at("AdamW")),
        ),
        Claim(
            id="flattening-does-not-harm",
            sentence="AdamC ends at most 0.005 nats above AdamW's decay, with the learning rate going to zero.",
            check=not_worse(LOSS, this=_at("AdamC", ZERO), than=_at("AdamW", ZERO), margin=0.005),
        ),
        Claim(
            id="clipping-is-not-it",
            sentence="Without clipping, AdamW's decay ends at most 0.005 nats above the same run with clipping at 1.",
            check=not_worse(LOSS, this=_at("AdamW"), than=_at("AdamW", clip="on"), margin=0.005),
        ),
    ),
    recipe={
        "smoke": RECIPE_SMOKE,
        "mini": f"{RECIPE_MINI} Only the first of them, without clipping except where said, at LR 6e-3 and decay 0.3; "
        "cosine to a tenth or linear to zero. Nothing was searched. 72 runs.",
        "paper": f"{RECIPE_PAPER} LR 6e-4, decay 0.3.",
    },
)
