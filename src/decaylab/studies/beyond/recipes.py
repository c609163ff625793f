"""Settings that the studies of our own share: the small language models of Fig. 5, their norm twins, and the seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from decaylab.config.identity import run_id
from decaylab.config.schema import AnyRun, LanguageRun
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.studies.why_weight_decay.recipes_gpt2 import BRANCH_NORMALISED, PAPER, PLAIN, smoke, trained_only

# No search, and no judged run of another study, has used a seed of 300 or more.
FIRST_SEED = 300
NETWORKS: dict[str, LanguageRun] = {
    "branch-normalised": trained_only(BRANCH_NORMALISED),
    "pre-LN": trained_only(PLAIN),
}
GPT2 = "GPT-2 124M"
RECIPE_SMOKE = "Twenty steps of the small networks: proves that the path works. One seed decides nothing."
RECIPE_MINI = (
    "The GPTs of Fig. 5: one layer, width 32, 2 heads, context 32, on the ASCII bytes of Python's standard library; "
    "batch 16, AdamW (0.9, 0.95), clip 1, 2 % warm-up, cosine to a tenth, 4000 steps, decay on hidden matrices only, "
    "loss on fixed batches. One normalises the output of each residual branch and q and k, so that its hidden matrices "
    "are scale-free; the other is the plain pre-LN network."
)
RECIPE_PAPER = (
    "GPT-2 small, 124M, on OpenWebText with context 256, as in Fig. 5: batch 256, AdamW (0.9, 0.95), clip 1, 400 steps "
    "of warm-up, cosine to a tenth, 50,000 steps, bfloat16; decay on matrices and embeddings. Nothing was searched."
)


def seeds(mini: int) -> dict[str, Sequence[int]]:
    """Return the seeds of each budget: one, so many fresh ones, and three."""
    fresh = range(FIRST_SEED, FIRST_SEED + mini)
    return {"smoke": (FIRST_SEED,), "mini": tuple(fresh), "paper": tuple(fresh[:3])}


def networks(budget: str) -> dict[str, LanguageRun]:
    """Return the language models of a budget by name; the first is the one whose hidden matrices are scale-free."""
    if budget == "paper":
        return {GPT2: trained_only(PAPER)}
    if budget == "smoke":
        return {name: smoke(run) for name, run in NETWORKS.items()}
    return dict(NETWORKS)


def of_length(run: LanguageRun, steps: int) -> LanguageRun:
    """Return a run of another length, with the same share of warm-up, evaluated ten times."""
    return replace(
        run,
        steps=steps,
        schedule=replace(run.schedule, warmup_steps=max(1, round(run.schedule.warmup_steps * steps / run.steps))),
        evaluation=replace(run.evaluation, every=max(1, steps // 10)),
    )


def norm_twin(spec: RunSpec, **labels: Label) -> RunSpec:
    """Return the norm twin of a run that records its norms.

    The same run without decay, whose decaying tensors are rescaled after every step to the norms that they have in the
    first one at that step.
    """
    config = spec.config
    if not config.record_norms:
        raise ValueError("a run that is followed has to record its norms")
    decay = replace(config.decay, rule="follow_norms", weight_decay=0.0, options=(), norms_from=run_id(config))
    twin: AnyRun = replace(config, decay=decay, record_norms=False)
    return RunSpec(config=twin, labels={**spec.labels, **labels})


def relabel(specs: Iterable[RunSpec], **labels: Label) -> list[RunSpec]:
    """Return runs with further labels."""
    return [RunSpec(config=spec.config, labels={**spec.labels, **labels}) for spec in specs]
