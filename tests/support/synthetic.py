"""Made-up runs with known answers, for tests only: two learning rates, two decays, records drawn from a formula."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from decaylab.config.schema import Optimizer, VisionRun
from decaylab.experiments.grid import grid
from decaylab.experiments.results import Results

STEPS = 200


@dataclass
class Row:
    status: str = "done"
    reason: str = ""
    step: int = STEPS
    total_steps: int = STEPS
    environment: dict = field(default_factory=lambda: {"python": "3.11.0", "torch": "2.13.0", "device": "cpu"})
    summary: dict = field(default_factory=dict)


def specs(seeds=(0, 1, 2)):
    axes = {
        "optimizer.lr": {"large": 0.2, "small": 0.01},
        "decay.weight_decay": {"with": 0.02, "none": 0.0},
        "seed": list(seeds),
    }
    return grid(VisionRun(optimizer=Optimizer(lr=0.1)), axes)


def error(labels, fraction, noise):
    """Share of test errors: lr large ends 2 points lower with decay, and the gap opens at half of the run."""
    gain = 0.02 if labels["lr"] == "large" and labels["wd"] == "with" and fraction > 0.5 else 0.0
    level = 0.15 if labels["lr"] == "large" else 0.18
    return level - gain + 0.3 * np.exp(-8 * fraction) + 0.01 * labels["seed"] + noise


def records(plan, rows, every=10, noise=0.001):
    rng = np.random.default_rng(0)
    found = []
    for spec in plan:
        row = rows.get(spec.id)
        if row is None or row.status == "waiting":
            continue
        for step in range(0, row.step + 1, every):
            f = step / row.total_steps
            found.append((spec.id, step, "epoch", step / 20))
            found.append((spec.id, step, "test/error", error(spec.labels, f, rng.normal(0, noise))))
            found.append((spec.id, step, "train/loss", 2.0 - f * (1.2 if spec.labels["wd"] == "with" else 1.0)))
    return pd.DataFrame(found, columns=["run", "step", "key", "value"])


def results(budget="mini", seeds=(0, 1, 2), change=None, **kwargs):
    plan = specs(seeds)
    rows = {spec.id: Row() for spec in plan}
    for spec in plan:
        if change:
            rows[spec.id] = change(spec.labels, rows[spec.id])
    rows = {run: row for run, row in rows.items() if row is not None}
    table = records(plan, rows, **kwargs)
    return Results(plan, rows, lambda keys: table[table["key"].isin(keys)], budget=budget)
