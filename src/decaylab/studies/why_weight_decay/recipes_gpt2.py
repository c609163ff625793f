"""The settings that the language figures share: the paper's GPT-2, and two GPTs that a laptop trains in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from decaylab.config.identity import run_id
from decaylab.config.schema import (
    Averages,
    Decay,
    Evaluation,
    InitFrom,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    Probes,
)
from decaylab.experiments.grid import grid
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.schedules import Schedule

# GPT-2 small on OpenWebText with context 256, as the authors' commands train it. Their filter of parameter names decays
# matrices, embeddings and the (tied) head; the global batch of 256 is 32 micro-batches of 8.
PAPER = LanguageRun(
    model=LanguageModel(num_layers=12, num_heads=12, width=768, context=256, vocab_size=50_304),
    data=LanguageData(corpus="openwebtext", tokenizer="gpt2"),
    optimizer=Optimizer(name="adamw", lr=6e-4, betas=(0.9, 0.95), clip=1.0),
    decay=Decay(rule="decoupled", roles=("matrix", "embedding", "head")),
    schedule=Schedule(kind="cosine", warmup_steps=400, final_ratio=0.1),
    averages=Averages(ema=(0.99,), uniform=True, uniform_from=0.5),
    evaluation=Evaluation(every=200, batches=125, batch_size=8),
    probes=Probes(
        names=("norms", "effective_lr"),
        every=20,
        curvature=("gradient_noise",),
        curvature_every=10,
        curvature_points=512,
    ),
    precision="bfloat16",
    batch_size=256,
    accumulation=32,
    compile=True,
    steps=50_000,
    snapshots_every=5_000,
    snapshot_optimizer=True,
)
# The output of each residual branch is normalised and so are queries and keys, so hidden matrices are scale-free: decay
# acts on their effective learning rate alone, as it does late in the training of a large model.
BRANCH_NORMALISED = LanguageRun(
    model=LanguageModel(
        num_layers=1,
        num_heads=2,
        width=32,
        context=32,
        tied=False,
        activation="relu",
        branch_norm=True,
        qk_norm=True,
    ),
    data=LanguageData(corpus="stdlib", tokenizer="ascii"),
    optimizer=Optimizer(name="adamw", lr=6e-3, betas=(0.9, 0.95), clip=1.0),
    decay=Decay(rule="decoupled", roles=("matrix",)),
    schedule=Schedule(kind="cosine", warmup_steps=80, final_ratio=0.1),
    averages=Averages(ema=(0.99,), uniform=True, uniform_from=0.5),
    evaluation=Evaluation(every=400, batches=6, batch_size=256),
    probes=Probes(
        names=("norms", "effective_lr"),
        every=50,
        curvature=("gradient_noise",),
        curvature_every=2,
        curvature_points=256,
    ),
    batch_size=16,
    steps=4000,
    snapshots_every=1000,
    snapshot_optimizer=True,
)
PLAIN = replace(
    BRANCH_NORMALISED,
    model=replace(BRANCH_NORMALISED.model, branch_norm=False, qk_norm=False),
    averages=Averages(),
    probes=Probes(names=("norms", "effective_lr"), every=50),
    snapshots_every=0,
)
# Labels: which of a budget's networks the claims are about, and what it is called.
MAIN: dict[str, Label] = {"study": "main", "phase": "trained"}
PRE_LN: dict[str, Label] = {"study": "pre-LN", "phase": "trained"}
COSINE_DECAYS = (0.0, 0.1, 0.3)
CONSTANT_DECAYS = (0.0, 0.1, 0.3, 0.6)
SEEDS: dict[str, Sequence[int]] = {"smoke": (0,), "mini": (100, 101, 102, 103), "paper": (0,)}
RECIPES = {
    "smoke": "Twenty steps of the small network: proves that the path works.",
    "mini": "Two GPTs of one layer, width 32, 2 heads, context 32, on the ASCII bytes of Python's standard library; "
    "batch 16, AdamW (0.9, 0.95), clip 1, LR 6e-3, 2 % warm-up, cosine to a tenth, 4000 steps, decay on hidden "
    "matrices only, loss on fixed batches. The first normalises the output of each residual branch and q and k, so "
    "that hidden matrices are scale-free; the second is the plain pre-LN network. Searched on seeds 0 to 2 "
    "(examples/search_language.py fig5, with its table in results/searches): decay 0.3 lowers the final loss in every "
    "seed where branches are normalised, with q and k too by 0.039 to 0.045 nats, and raises it with q and k alone and "
    "in the plain network. LR 6e-3 is below the best one for no decay (0.03 of four up to 0.1, with 1.770 nats, where "
    "decay 0.3 at 6e-3 has 1.790), and the plain network without decay is the better model at this size (1.736): the "
    "claims are about the mechanism, never that decay gives the best model.",
    "paper": "GPT-2 small, 124M, tied, without biases, on OpenWebText with context 256: batch 256 (32 micro-batches of "
    "8), AdamW (0.9, 0.95), clip 1, LR 6e-4, 400 steps of warm-up, cosine to a tenth, 50,000 steps, bfloat16; decay on "
    "matrices and embeddings. One seed, as in the authors' commands; give --seeds 3 or more to have the claims tested.",
}


def constant_lr(run: LanguageRun) -> LanguageRun:
    """Return the same run with a constant learning rate after the warm-up."""
    return replace(run, schedule=Schedule(kind="constant", warmup_steps=run.schedule.warmup_steps))


def tiny_lr_copies(
    parent: RunSpec,
    *,
    steps: Sequence[int],
    lr: float,
    length: int,
    accumulation: int | None = None,
    batches: int | None = None,
) -> list[RunSpec]:
    """Return runs that fine-tune a run's snapshots with a tiny constant learning rate and no decay.

    As in the authors' commands the optimizer's state is kept and the decay is not: their fine-tuning commands leave
    the weight decay at its default, 0.

    Args:
        parent: The run whose snapshots are taken.
        steps: Steps of the snapshots.
        lr: Learning rate.
        length: Steps of fine-tuning.
        accumulation: Micro-batches a step; the parent's by default.
        batches: Evaluation batches; the parent's by default.
    """
    config = parent.config
    assert isinstance(config, LanguageRun)
    copies = []
    for step in steps:
        copy = replace(
            config,
            optimizer=replace(config.optimizer, lr=lr),
            schedule=Schedule(kind="constant"),
            decay=replace(config.decay, weight_decay=0.0),
            init_from=InitFrom(run=run_id(config), step=step, optimizer=True),
            averages=Averages(),
            probes=replace(config.probes, curvature=()),
            accumulation=accumulation or config.accumulation,
            steps=length,
            evaluation=replace(config.evaluation, every=length // 2, batches=batches or config.evaluation.batches),
            snapshots_every=0,
            snapshot_optimizer=False,
        )
        copies.append(RunSpec(config=copy, labels={**parent.labels, "phase": "fine-tuned", "start": step}))
    return copies


def main_runs(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    """Return the runs of Fig. 5, which Fig. 4, 6, 17 and 18 draw too: cosine and constant LR, several decays."""
    if budget == "paper":
        networks = [(MAIN, "GPT-2 124M", PAPER)]
    else:
        networks = [(MAIN, "branch-normalised", BRANCH_NORMALISED), (PRE_LN, "pre-LN", PLAIN)]
    runs: list[RunSpec] = []
    for study, name, full in networks:
        base = smoke(full) if budget == "smoke" else full
        for schedule, decays in (("cosine", COSINE_DECAYS), ("constant", CONSTANT_DECAYS)):
            if study is PRE_LN and schedule == "constant":
                continue  # the question there is only whether decay lowers the final loss
            run = base if schedule == "cosine" else constant_lr(base)
            labels = {**study, "start": 0, "network": name, "schedule": schedule, "panel": f"{name}, {schedule} LR"}
            runs += grid(run, {"decay.weight_decay": decays, "seed": list(seeds)}, labels=labels)
    return runs


def relabelled(runs: Sequence[RunSpec], *names: str) -> list[RunSpec]:
    """Return the same runs with only some of their labels, for a figure in which the others do not vary."""
    return [RunSpec(config=spec.config, labels={name: spec.labels[name] for name in names}) for spec in runs]


def smoke(run: LanguageRun) -> LanguageRun:
    """Return the same run cut down to a second."""
    return replace(
        run,
        schedule=replace(run.schedule, warmup_steps=2),
        evaluation=replace(run.evaluation, every=10, batches=1, batch_size=16),
        probes=replace(run.probes, every=10, curvature_points=min(run.probes.curvature_points, 8)),
        steps=20,
        snapshots_every=run.snapshots_every and 10,
    )


def base_run(budget: str) -> LanguageRun:
    """Return the run that the appendix figures vary: the paper's, or the small branch-normalised one."""
    if budget == "paper":
        return PAPER
    return smoke(BRANCH_NORMALISED) if budget == "smoke" else BRANCH_NORMALISED


def trained_only(run: LanguageRun) -> LanguageRun:
    """Return the same run without averages, curvature and snapshots, for figures that do not read them.

    At the paper budget they cost little and stay.
    """
    if run.steps == PAPER.steps:
        return replace(run, probes=replace(run.probes, curvature=()), snapshots_every=0, snapshot_optimizer=False)
    return replace(
        run,
        averages=Averages(),
        probes=replace(run.probes, curvature=()),
        snapshots_every=0,
        snapshot_optimizer=False,
    )
