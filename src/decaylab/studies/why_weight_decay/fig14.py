"""Fig. 14: does it matter whether the gains of the normalisation layers decay too?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from decaylab.experiments.chart_data import curves, finals
from decaylab.experiments.checks import higher, lower
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import final
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.why_weight_decay.recipes_gpt2 import (
    COSINE_DECAYS,
    PAPER,
    SEEDS,
    base_run,
    main_runs,
    relabelled,
    trained_only,
)

LOSS = final("train/loss", name="training loss")
WEIGHTS = "weights"
ALL = "weights and norm gains"
# Micro-batches a step of the authors' commands: the global batch is 256 either way, only the rounding differs.
_PAPER_DECAYS = {32: (0.003, 0.01, 0.03, 0.1), 8: (0.15, 0.2, 0.3)}
_SMALL_DECAYS = (0.03, 0.1, 0.3)


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    runs = [s for s in main_runs(budget, seeds) if s.labels["study"] == "main" and s.labels["schedule"] == "cosine"]
    reference = [
        RunSpec(config=s.config, labels={**s.labels, "decays": WEIGHTS}) for s in relabelled(runs, "wd", "seed")
    ]
    base = trained_only(base_run(budget))
    roles = (*base.decay.roles, "norm")
    # Without biases these are all parameters of GPT-2; the small network decays its hidden matrices alone.
    base = replace(base, decay=replace(base.decay, roles=roles))
    lists = _PAPER_DECAYS if budget == "paper" else {base.accumulation: _SMALL_DECAYS}
    for accumulation, decays in lists.items():
        axes = {"decay.weight_decay": decays, "seed": list(seeds)}
        reference += grid(replace(base, accumulation=accumulation), axes, labels={"decays": ALL})
    return reference


EXPERIMENT = Experiment(
    id="fig14",
    title="Weight decay on the gains of the normalisation layers too",
    paper="Fig. 14",
    question="Does weight decay on all parameters, the gains of the normalisation layers included, have the same "
    "effect as on the weights alone?",
    seeds=SEEDS,
    plan=_plan,
    charts=(
        Chart(
            id="loss",
            title="Training loss",
            data=curves("train/loss", start=0.05),
            x="step",
            color="wd",
            palette="wd",
            panel="decays",
            x_title="step",
            y_title="training loss (nats per token)",
            color_title="weight decay",
            caption="Loss on fixed training batches, mean over seeds with its 95 % interval.",
        ),
        Chart(
            id="final",
            title="Final training loss by weight decay",
            data=finals("train/loss"),
            x="wd",
            color="decays",
            x_title="weight decay",
            y_title="training loss (nats per token)",
            color_title="what decays",
            caption="Mean over seeds with its 95 % interval.",
        ),
    ),
    claims=(
        Claim(
            id="same-effect-at-0.1",
            sentence="Weight decay 0.1 on all of them, norm gains included, ends with a lower training loss than none.",
            check=lower(LOSS, this={"decays": ALL, "wd": 0.1}, than={"decays": WEIGHTS, "wd": 0.0}),
        ),
        Claim(
            id="worse-at-0.3",
            sentence="With weight decay 0.3 the run whose norm gains decay too ends with a higher training loss than "
            "the one whose weights alone decay.",
            check=higher(LOSS, this={"decays": ALL, "wd": 0.3}, than={"decays": WEIGHTS, "wd": 0.3}),
        ),
    ),
    recipe={
        "smoke": "Twenty steps of the small network: proves that the path works.",
        "mini": "The branch-normalised GPT of Fig. 5 with decay on its hidden matrices and on its norm gains, beside "
        "the runs of Fig. 5, in which only the hidden matrices decay. Nothing was searched.",
        "paper": "The runs of Fig. 5 with decay on matrices, embeddings and norm gains: with no biases, all "
        f"parameters. Decays {', '.join(f'{d:g}' for ds in _PAPER_DECAYS.values() for d in ds)} as in the authors' "
        "commands (the paper names 0.1 and 0.3); 32 micro-batches a step up to 0.1 and 8 above, again as there. "
        f"Beside them Fig. 5's runs with decays {', '.join(f'{d:g}' for d in COSINE_DECAYS)}, "
        f"{PAPER.steps:,} steps.",
    },
)
