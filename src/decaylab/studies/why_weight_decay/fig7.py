"""Fig. 7: does weight decay keep bfloat16 training from diverging?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from decaylab.config.schema import Averages, Divergence, Evaluation, Probes
from decaylab.experiments.chart_data import against_reference, curves
from decaylab.experiments.checks import all_of, diverges_more, higher, lower
from decaylab.experiments.grid import grid
from decaylab.experiments.quantity import final
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment, with_settings
from decaylab.studies.why_weight_decay.recipes_gpt2 import PAPER, PLAIN, smoke

LOSS = final("train/loss", name="training loss")
# The long context of the paper's bfloat16 runs, in the micro-batches of the authors' commands.
LONG_CONTEXT = replace(
    PAPER,
    model=replace(PAPER.model, context=1024),
    accumulation=16,
    probes=replace(PAPER.probes, curvature=()),
    divergence=Divergence(rise=1.0, patience=2000),
    snapshots_every=0,
    snapshot_optimizer=False,
)
SMALL = replace(
    PLAIN,
    decay=replace(PLAIN.decay, roles=("matrix", "embedding", "head")),
    schedule=replace(PLAIN.schedule, warmup_steps=24),
    divergence=Divergence(rise=1.0, patience=100),
    evaluation=Evaluation(every=20, batches=4, batch_size=256),
    probes=Probes(names=("norms", "effective_lr"), every=10),
    steps=600,
    snapshot_optimizer=False,
)
# An hour of one GPU: a GPT of 18M weights with a long context. A run in float32 takes three times one in bfloat16.
GPU_HOUR = replace(
    LONG_CONTEXT,
    model=replace(LONG_CONTEXT.model, num_layers=6, num_heads=4, width=256),
    schedule=replace(LONG_CONTEXT.schedule, warmup_steps=60),
    averages=Averages(),
    divergence=Divergence(rise=1.0, patience=200),
    evaluation=Evaluation(every=100, batches=25, batch_size=16),
    probes=Probes(names=("norms", "effective_lr"), every=20),
    batch_size=16,
    accumulation=1,
    steps=1200,
)
_RATES = {
    "smoke": {"large": 1.0, "moderate": 0.5},
    "mini": {"large": 1.0, "moderate": 0.5},
    "gpu-hour": {"large": 3e-2, "moderate": 3e-3},
    "paper": {"large": 1e-3, "moderate": 6e-4},
}
_DECAYS = {"none": 0.0, "small": 0.1, "large": 0.3}
# Where updates are small beside the spacing of bfloat16 numbers.
_LOW: dict[str, dict[str, Any]] = {
    "smoke": {"optimizer.lr": 1e-3},
    "mini": {"optimizer.lr": 1e-3},
    "gpu-hour": {"optimizer.lr": 3e-4, "precision": "bfloat16"},
    "paper": {"optimizer.lr": 3e-4, "precision": "bfloat16"},
}
# How weights are stored, another matter than the arithmetic of the forward and backward pass.
_STORED: dict[str, dict[str, Any]] = {
    "float32 weights": {},
    "bfloat16 weights": {"weights": "bfloat16"},
    "bfloat16 weights, stochastic rounding": {"weights": "bfloat16", "stochastic_rounding": True},
}


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    base = {"smoke": smoke(SMALL), "mini": SMALL, "gpu-hour": GPU_HOUR, "paper": LONG_CONTEXT}[budget]
    axes: dict[Any, Any] = {
        "precision": ("bfloat16", "float32"),
        "optimizer.lr": _RATES[budget],
        "decay.weight_decay": _DECAYS,
        "seed": list(seeds),
    }
    specs = list(grid(base, axes, labels={"study": "divergence"}))
    low = with_settings(base, _LOW[budget])
    for name, settings in _STORED.items():
        lr = low.optimizer.lr
        where: dict[str, Label] = {"study": "storage", "precision": name, "lr": "low", "lr_value": lr}
        where |= {"wd": "none", "wd_value": 0.0}
        specs += grid(replace(low, **settings), {"seed": list(seeds)}, labels=where)
    return [RunSpec(config=s.config, labels={**s.labels, "panel": _panel(s.labels)}) for s in specs]


def _panel(labels: Mapping[str, Label]) -> str:
    return "storage" if labels["study"] == "storage" else f"{labels['precision']}, LR {labels['lr_value']:g}"


def _at(precision: str, lr: str, wd: str) -> dict[str, Label]:
    return {"study": "divergence", "precision": precision, "lr": lr, "wd": wd}


def _stored(name: str) -> dict[str, Label]:
    return {"study": "storage", "precision": name}


DIVERGENCE: dict[str, Label] = {"study": "divergence"}
STORAGE: dict[str, Label] = {"study": "storage"}

EXPERIMENT = Experiment(
    id="fig7",
    title="Divergence in bfloat16, and what prevents it",
    paper="Fig. 7",
    question="A learning rate at which float32 trains well makes bfloat16 diverge: does weight decay, or a lower "
    "learning rate, prevent it, and at what price?",
    seeds={"smoke": (0,), "mini": (100, 101, 102, 103, 104), "gpu-hour": (0, 1), "paper": (0, 1, 2)},
    plan=_plan,
    charts=(
        Chart(
            id="loss",
            title="Training loss",
            data=curves("train/loss", where=DIVERGENCE, start=0.02),
            x="step",
            color="wd_value",
            palette="wd",
            panel="panel",
            dash="seed",
            over=None,
            log_y=True,
            x_title="step",
            y_title="training loss (nats per token)",
            color_title="weight decay",
            dash_title="seed",
            caption="Loss on fixed training batches, one line a seed. A line that ends early is a run that diverged.",
        ),
        Chart(
            id="norm",
            title="Weight norm",
            data=curves("weights/norm", where=DIVERGENCE),
            x="step",
            color="wd_value",
            palette="wd",
            panel="panel",
            x_title="step",
            y_title="norm of all weights",
            color_title="weight decay",
            caption="Without decay the weights grow as far as the learning rate carries them.",
        ),
        Chart(
            id="storage",
            title="Weights stored in bfloat16: training loss minus that of float32 weights",
            data=against_reference("train/loss", reference={"precision": "float32 weights"}, where=STORAGE),
            x="step",
            color="precision",
            x_title="step",
            y_title="difference (nats per token)",
            color_title="weights",
            caption="A low learning rate without decay, paired by seed, mean with its 95 % interval. In bfloat16 "
            "256 + 1 = 256: rounding to nearest loses what is smaller than half the spacing, rounding at random keeps "
            "it on average.",
        ),
    ),
    claims=(
        Claim(
            id="bfloat16-diverges",
            sentence="At the large learning rate without weight decay more seeds diverge in bfloat16 than in float32.",
            check=diverges_more(this=_at("bfloat16", "large", "none"), than=_at("float32", "large", "none")),
        ),
        Claim(
            id="lower-lr-prevents-it",
            sentence="In bfloat16 without decay fewer seeds diverge at the moderate learning rate.",
            check=diverges_more(this=_at("bfloat16", "large", "none"), than=_at("bfloat16", "moderate", "none")),
        ),
        Claim(
            id="decay-prevents-it",
            sentence="In bfloat16 at the large learning rate fewer seeds diverge with either weight decay.",
            check=all_of(
                *(
                    diverges_more(this=_at("bfloat16", "large", "none"), than=_at("bfloat16", "large", wd))
                    for wd in ("small", "large")
                )
            ),
        ),
        Claim(
            id="stored-in-bfloat16",
            sentence="At a low learning rate, weights stored in bfloat16 end with a higher training loss than "
            "weights stored in float32, and stochastic rounding"
            " ends lower than rounding to nearest.",
            check=all_of(
                higher(LOSS, this=_stored("bfloat16 weights"), than=_stored("float32 weights")),
                lower(LOSS, this=_stored("bfloat16 weights, stochastic rounding"), than=_stored("bfloat16 weights")),
            ),
        ),
        Claim(
            id="decay-at-the-large-lr-is-better",
            sentence="In bfloat16 the large learning rate with decay ends with a lower training loss than the moderate "
            "one without.",
            check=lower(LOSS, this=_at("bfloat16", "large", "small"), than=_at("bfloat16", "moderate", "none")),
        ),
    ),
    recipe={
        "smoke": "Twenty steps of the small network: proves that the path works.",
        "mini": "The plain pre-LN GPT of Fig. 5, decay on matrices, embedding and head, 600 steps, 24 of warm-up, "
        "clip 1, bfloat16 autocast. A run whose smoothed loss rises by 1 nat and does not come back to within half a "
        "nat for 100 steps ends as diverged. Searched on seeds 0 to 3 (examples/search_language.py fig7, with its "
        "table in results/searches): without decay neither precision diverges up to LR 0.5; at LR 1 bfloat16 does in 4 "
        "of 4, early, and float32 in none of 4: far above any useful learning rate, where the paper has a moderate one "
        "and a divergence late in training. Without clipping none of 4 did. At LR 1 in bfloat16 decay 0.01 failed in "
        "9 of 9 seeds and 0.03 in 8 of 9, the figure's own among them, 0.1 in 1 of 4 and 0.3 in none of 4. So a small "
        "decay does not prevent it; where between 0.03 and 0.1 it begins to was not searched, nor what lies above 0.3. "
        "These divergences are not for good: left to go on, the figure's seeds came back while the learning rate fell, "
        "without decay to 3.21 to 3.73 nats at the end, with decays 0.01 to 0.1 to 3.06 to 3.34, where float32 without "
        "decay has 2.93 to 2.99 on seeds 0 to 3. At this learning rate two runs part with the first difference in "
        "rounding, so another processor counts a seed more or less. Beside it the storage: LR 1e-3, no decay, weights "
        "in float32 and in bfloat16, rounded to nearest and at random; nothing was searched for it.",
        "gpu-hour": "A GPT-2 of 6 layers, width 256 and 4 heads (18M weights) on OpenWebText with context 1024: batch "
        "16, 1200 steps, 60 of warm-up, LR 3e-2 and 3e-3, decays 0, 0.1 and 0.3, bfloat16 autocast and float32, two "
        "seeds. A run whose smoothed loss rises by 1 nat and does not come back for 200 steps ends as diverged. "
        "Nothing was searched: a small network takes larger rates than the paper's, and where bfloat16 parts from "
        "float32 in it is not known.",
        "paper": "GPT-2 small with context 1024, batch 256 in 16 micro-batches of 16, LR 1e-3 and 6e-4, decays 0, 0.1 "
        "and 0.3, bfloat16 autocast and float32, three seeds. The README's four commands have LR 6e-4 only, under the "
        "name high_lr; the paper says that LR 1e-3 is the one that diverges and 6e-4 the one that does not, so both "
        "are here. A run whose smoothed loss rises by 1 nat and does not come back for 2000 steps ends as diverged. "
        "Added: weights stored in bfloat16 at LR 3e-4, rounded to nearest and at random.",
    },
)
