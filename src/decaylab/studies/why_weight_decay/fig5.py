"""Fig. 5: does weight decay lower the training loss of a language model, and only together with a falling LR?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from decaylab.config.schema import Averages, Evaluation, Probes
from decaylab.experiments.chart_data import against_reference, curves, finals
from decaylab.experiments.checks import all_of, crosses, higher, lower
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import at, final, mean_over
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.studies.why_weight_decay.recipes_gpt2 import (
    CONSTANT_DECAYS,
    COSINE_DECAYS,
    MAIN,
    PAPER,
    PRE_LN,
    RECIPES,
    SEEDS,
    constant_lr,
    main_runs,
    tiny_lr_copies,
)

# Budget -> (steps of the snapshots, learning rate, steps of the fine-tuning).
TINY: dict[str, tuple[Sequence[int], float, int]] = {
    "smoke": ((10,), 1e-4, 4),
    "mini": ((1000, 2000, 3000, 4000), 1e-4, 600),
    "gpu-hour": ((2000, 4000, 6000), 1e-5, 1000),
    "paper": (range(10_000, 50_001, 10_000), 1e-5, 10_000),
}
# An hour of one GPU: a GPT of 18M weights on the paper's text, 98M tokens of it.
GPU_HOUR = replace(
    PAPER,
    model=replace(PAPER.model, num_layers=6, num_heads=4, width=256),
    optimizer=replace(PAPER.optimizer, lr=1e-3),
    schedule=replace(PAPER.schedule, warmup_steps=200),
    averages=Averages(),
    evaluation=Evaluation(every=300, batches=50, batch_size=64),
    probes=Probes(names=("norms", "effective_lr"), every=50),
    batch_size=64,
    accumulation=1,
    steps=6000,
    snapshots_every=2000,
)
# The authors' two fine-tuning commands: 5000 evaluation sequences; 64 micro-batches for runs with cosine decay, and the
# usual 32 for those with a constant learning rate.
_PAPER_COPIES = {"cosine": {"accumulation": 64, "batches": 625}, "constant": {"batches": 625}}
TRAINED = {"phase": "trained"}
LOSS = final("train/loss", name="training loss")
COSINE = {**MAIN, "schedule": "cosine"}
CONSTANT = {**MAIN, "schedule": "constant"}


def with_copies(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    """Return the runs of Fig. 5 and copies of their snapshots, fine-tuned with a tiny learning rate."""
    steps, lr, length = TINY[budget]
    runs = _gpu_hour(seeds) if budget == "gpu-hour" else main_runs(budget, seeds)
    schedules = ("cosine", "constant") if budget == "paper" else ("cosine",)
    copies: list[RunSpec] = []
    for run in runs:
        schedule = str(run.labels["schedule"])
        if run.config.snapshots_every and schedule in schedules:
            settings = _PAPER_COPIES[schedule] if budget == "paper" else {}
            copies += tiny_lr_copies(run, steps=steps, lr=lr, length=length, **settings)
    # Claims speak of the first snapshot, whatever its step is at a budget.
    return [
        RunSpec(config=s.config, labels={**s.labels, **_when(int(s.labels["start"]), steps)}) for s in runs + copies
    ]


def _gpu_hour(seeds: Sequence[int]) -> list[RunSpec]:
    runs: list[RunSpec] = []
    for schedule, decays in (("cosine", COSINE_DECAYS), ("constant", CONSTANT_DECAYS)):
        run = GPU_HOUR if schedule == "cosine" else constant_lr(GPU_HOUR)
        labels = {**MAIN, "start": 0, "network": "GPT 18M", "schedule": schedule, "panel": f"GPT 18M, {schedule} LR"}
        runs += grid(run, {"decay.weight_decay": decays, "seed": list(seeds)}, labels=labels)
    return runs


def _when(start: int, steps: Sequence[int]) -> dict[str, Label]:
    return {"share": round(100 * start / max(steps)), "snapshot": "first" if start == min(steps) else "other"}


FIRST_COPY: dict[str, Label] = {"study": "main", "schedule": "cosine", "phase": "fine-tuned", "snapshot": "first"}


EXPERIMENT = Experiment(
    id="fig5",
    title="Training loss of a language model with and without weight decay",
    paper="Fig. 5",
    question="Does weight decay lower the final training loss? It should when the learning rate decays, should not "
    "when the learning rate stays constant, and a run with a higher loss can still be the better start for a tiny one.",
    seeds={**SEEDS, "gpu-hour": (0,)},
    plan=with_copies,
    charts=(
        Chart(
            id="loss",
            title="Training loss",
            data=curves("train/loss", where=TRAINED, start=0.05),
            x="step",
            color="wd",
            palette="wd",
            panel="panel",
            x_title="step",
            y_title="training loss (nats per token)",
            color_title="weight decay",
            caption="Loss on fixed training batches, mean over seeds with its 95 % interval.",
        ),
        Chart(
            id="difference",
            title="Training loss minus that without decay",
            data=against_reference("train/loss", reference={"wd": 0.0}, where=TRAINED),
            x="step",
            color="wd",
            palette="wd",
            panel="panel",
            x_title="step",
            y_title="difference (nats per token)",
            color_title="weight decay",
            caption="Paired by seed: same initialisation, same data order. Below zero, decay is better.",
        ),
        Chart(
            id="tiny-lr",
            title="Training loss after fine-tuning with a tiny learning rate",
            data=finals("train/loss", where={"phase": "fine-tuned"}),
            x="start",
            color="wd",
            palette="wd",
            panel="panel",
            x_title="step of the snapshot that is fine-tuned",
            y_title="training loss (nats per token)",
            color_title="weight decay",
            caption="Snapshots of the runs above, fine-tuned without weight decay.",
        ),
    ),
    claims=(
        Claim(
            id="decay-lowers-the-final-loss",
            sentence="With a cosine learning rate, weight decay 0.1 and 0.3 end with a lower training loss than none.",
            check=all_of(*(lower(LOSS, this=COSINE | {"wd": wd}, than=COSINE | {"wd": 0.0}) for wd in (0.1, 0.3))),
        ),
        Claim(
            id="decay-is-higher-before",
            sentence="With a cosine learning rate, decay 0.3 has the higher loss in the first part of training and the "
            "curves cross later.",
            check=all_of(
                higher(
                    mean_over("train/loss", 0.1, 0.4, name="training loss"),
                    this=COSINE | {"wd": 0.3},
                    than=COSINE | {"wd": 0.0},
                ),
                crosses(
                    "train/loss", this=COSINE | {"wd": 0.3}, than=COSINE | {"wd": 0.0}, between=(0.2, 1), start=0.1
                ),
            ),
        ),
        Claim(
            id="no-help-at-constant-lr",
            sentence="With a constant learning rate, decay 0.1, 0.3 and 0.6 all end with a higher training loss.",
            check=all_of(
                *(higher(LOSS, this=CONSTANT | {"wd": wd}, than=CONSTANT | {"wd": 0.0}) for wd in (0.1, 0.3, 0.6))
            ),
        ),
        Claim(
            id="higher-start-lower-end",
            sentence="Fine-tuned with a tiny learning rate from the first snapshot, the run with decay 0.3 "
            "starts with a higher loss than the one without decay and ends with a lower one.",
            check=all_of(
                higher(at("train/loss", 0.0), this=FIRST_COPY | {"wd": 0.3}, than=FIRST_COPY | {"wd": 0.0}),
                lower(LOSS, this=FIRST_COPY | {"wd": 0.3}, than=FIRST_COPY | {"wd": 0.0}),
            ),
        ),
        Claim(
            id="also-without-branch-norm",
            sentence="The plain pre-LN network of the same size ends with a lower training loss with decay 0.1 too.",
            check=lower(
                LOSS, this=PRE_LN | {"schedule": "cosine", "wd": 0.1}, than=PRE_LN | {"schedule": "cosine", "wd": 0.0}
            ),
            budgets=("mini",),
            untested=dict.fromkeys(
                ("gpu-hour", "paper"), "GPT-2 is the plain pre-LN network, so the first claim is this one"
            ),
        ),
    ),
    recipe={
        **RECIPES,
        "mini": RECIPES["mini"] + " Fine-tuning: 600 steps at LR 1e-4 without decay from every 1000th step.",
        "gpu-hour": "A GPT-2 of 6 layers, width 256 and 4 heads (18M weights, tied) on OpenWebText with context "
        "256: batch 64, AdamW (0.9, 0.95), clip 1, LR 1e-3, 200 steps of warm-up, cosine to a tenth, 6000 steps "
        "(98M tokens), bfloat16; decay on matrices and embeddings. Fine-tuning: 1000 steps at LR 1e-5 from every "
        "2000th step of the runs with a cosine LR. One seed; give --seeds 3 or more to have the claims tested. Nothing "
        "was searched.",
        "paper": RECIPES["paper"]
        + " Fine-tuning: 10,000 steps at LR 1e-5 from every 10,000th step. As in the authors' "
        "commands it has no decay and keeps the optimizer's state, in 64 micro-batches for runs with a cosine LR and "
        "32 for those with a constant one; the paper says none of this.",
    },
)
