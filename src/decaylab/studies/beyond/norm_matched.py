"""Norm-matched control: is the whole effect of weight decay on a language model its effect on the weight norms?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from decaylab.config.schema import LanguageRun
from decaylab.experiments.chart_data import against_reference
from decaylab.experiments.checks import equivalent, higher, lower
from decaylab.experiments.effects import has_share
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import final
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.beyond.recipes import GPT2, RECIPE_MINI, RECIPE_PAPER, RECIPE_SMOKE, networks, norm_twin, seeds

LOSS = final("train/loss", name="training loss")
NONE, DECAY, NORMS, SLOWER = "none", "decay 0.3", "norms of decay 0.3", "slower cosine"
_STRETCH = 1.2  # the middle one of Fig. 19's lengths of the cosine
MAIN: dict[str, Label] = {"study": "scale-free"}
PRE_LN: dict[str, Label] = {"study": "plain"}


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    specs: list[RunSpec] = []
    for name, base in networks(budget).items():
        # GPT-2's matrices are mostly scale-free late in training; it stands in the place of the small scale-free one.
        labels: dict[str, Label] = {"study": "plain" if name == "pre-LN" else "scale-free", "network": name}
        specs += _arms(base, labels, seeds)
    return specs


def _arms(base: LanguageRun, labels: dict[str, Label], seeds: Sequence[int]) -> list[RunSpec]:
    each = {"seed": list(seeds)}
    decayed = replace(base, decay=replace(base.decay, weight_decay=0.3), record_norms=True)
    slower = replace(base, schedule=replace(base.schedule, decay_steps=round(_STRETCH * base.steps)))
    runs = list(grid(decayed, each, labels={**labels, "arm": DECAY}))
    return [
        *grid(base, each, labels={**labels, "arm": NONE}),
        *runs,
        *(norm_twin(spec, arm=NORMS) for spec in runs),
        *grid(slower, each, labels={**labels, "arm": SLOWER}),
    ]


def _arm(study: dict[str, Label], name: str) -> dict[str, Label]:
    return {**study, "arm": name}


EXPERIMENT = Experiment(
    id="norm_matched",
    title="Weight decay against the same weight norms without weight decay",
    paper="own",
    question="Is the whole effect of weight decay on a language model its effect on the norms of the weights? A run "
    "without decay follows, matrix by matrix and step by step, the norms of the run with decay: what it lacks of "
    "the effect is regularisation. A learning rate that falls more slowly is the control of a control.",
    seeds=seeds(mini=8),
    plan=_plan,
    charts=(
        Chart(
            id="difference",
            title="Training loss minus that without decay",
            data=against_reference("train/loss", reference={"arm": NONE}),
            x="step",
            color="arm",
            panel="network",
            share_y=False,
            x_title="step",
            y_title="difference (nats per token)",
            color_title="",
            caption="Paired by seed: same initialisation, same data order. Where the two lines lie on each other, the "
            "norms are all that decay does. Below zero is better than no decay. Mean over seeds with its 95 % "
            "interval.",
        ),
    ),
    claims=(
        Claim(
            id="decay-helps-where-matrices-are-scale-free",
            sentence="With normalised branches, weight decay 0.3 ends with a lower training loss than none.",
            check=lower(LOSS, this=_arm(MAIN, DECAY), than=_arm(MAIN, NONE)),
        ),
        Claim(
            id="norms-alone-help-as-much",
            sentence="With normalised branches, the run without decay that has the norms of the run with decay 0.3 has "
            "at least 90 % of its gain.",
            check=has_share(
                LOSS,
                this=_arm(MAIN, NORMS),
                of=_arm(MAIN, DECAY),
                baseline=_arm(MAIN, NONE),
                share=0.9,
                effect="lower",
            ),
        ),
        Claim(
            id="nothing-but-norms",
            sentence="With normalised branches, decay 0.3 and its norms without decay end with the same training loss, "
            "within 0.01 nats.",
            check=equivalent(LOSS, this=_arm(MAIN, NORMS), that=_arm(MAIN, DECAY), margin=0.01),
        ),
        Claim(
            id="not-a-slower-cosine",
            sentence="With normalised branches, the norms of decay 0.3 end with a lower training loss than a cosine "
            f"that is {_STRETCH:g} times as long, without decay.",
            check=lower(LOSS, this=_arm(MAIN, NORMS), than=_arm(MAIN, SLOWER)),
        ),
        Claim(
            id="decay-harms-the-plain-network",
            sentence="In the plain pre-LN network, weight decay 0.3 ends with a higher training loss than none.",
            check=higher(LOSS, this=_arm(PRE_LN, DECAY), than=_arm(PRE_LN, NONE)),
            budgets=("mini",),
            untested={"paper": f"{GPT2} is the only network there"},
        ),
        Claim(
            id="norms-alone-harm-as-much",
            sentence="In the plain pre-LN network, the run without decay that has the norms of the run with decay 0.3 "
            "has at least 80 % of its harm.",
            check=has_share(
                LOSS,
                this=_arm(PRE_LN, NORMS),
                of=_arm(PRE_LN, DECAY),
                baseline=_arm(PRE_LN, NONE),
                share=0.8,
                effect="higher",
            ),
            budgets=("mini",),
            untested={"paper": f"{GPT2} is the only network there"},
        ),
    ),
    recipe={
        "smoke": RECIPE_SMOKE,
        "mini": f"{RECIPE_MINI} LR 6e-3, about 5 decay timescales at decay 0.3. That norms have about 97 % of the gain "
        "was seen on three seeds before this study was declared; those judged here are fresh. 64 runs.",
        "paper": f"{RECIPE_PAPER} LR 6e-4.",
    },
)
