"""Sizes of language runs that fit a machine: one place for the command line, the docs and messages about memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decaylab.config.schema import Evaluation, LanguageModel, LanguageRun, Optimizer
from decaylab.errors import DecaylabError, unknown
from decaylab.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A size.

    Attributes:
        text: What it is for, one line.
        run: The run, before flags change it.
    """

    text: str
    run: LanguageRun


def _run(model: LanguageModel, **settings: Any) -> LanguageRun:
    optimizer = Optimizer(name="adamw", lr=1e-3, clip=1.0)
    return LanguageRun(model=model, optimizer=optimizer, **settings)


PRESETS: Mapping[str, Preset] = {
    "small": Preset(
        text="0.8M weights, 2,000 steps of 32 x 128 tokens: minutes on a laptop",
        run=_run(
            LanguageModel(num_layers=4, num_heads=4, width=128, context=128),
            schedule=Schedule(kind="cosine", warmup_steps=100),
            evaluation=Evaluation(every=200, batches=20, batch_size=32),
            batch_size=32,
            steps=2000,
        ),
    ),
    "medium": Preset(
        text="11M weights, 5,000 steps of 64 x 256 tokens: minutes on a GPU, hours on a laptop",
        run=_run(
            LanguageModel(num_layers=6, num_heads=6, width=384, context=256),
            schedule=Schedule(kind="cosine", warmup_steps=200),
            evaluation=Evaluation(every=500, batches=50, batch_size=32),
            batch_size=64,
            steps=5000,
        ),
    ),
    "gpt2": Preset(text="124M weights, 50,000 steps of 256 x 1,024 tokens: GPUs; the default", run=LanguageRun()),
}


def preset(name: str, kind: str) -> LanguageRun:
    """Return the run of a preset.

    Args:
        name: A key of `PRESETS`.
        kind: ``language``; there are none for ``vision``, whose defaults train in seconds.

    Raises:
        DecaylabError: An unknown preset, or one for a run of another kind.
    """
    if kind != "language":
        raise DecaylabError(f"--preset is for language runs; the defaults of {kind} runs are small already")
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name].run
