"""The searches behind the small language figures, to run again: what each recipe's numbers were read from.

    python examples/search_language.py fig7 --store search.db

It trains what the store lacks and prints a table. The tables that the recipes were read from are in results/searches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd
import tyro

from decaylab.config.schema import Divergence, Optimizer
from decaylab.experiments.grid import grid
from decaylab.experiments.run_spec import RunSpec
from decaylab.launch.backends.local import launch
from decaylab.launch.scheduler import Run
from decaylab.store.records import RunRow
from decaylab.store.store import Store
from decaylab.studies.why_weight_decay import fig7
from decaylab.studies.why_weight_decay.recipes_gpt2 import BRANCH_NORMALISED, trained_only

SMALL = trained_only(BRANCH_NORMALISED)
DIGITS = "%.4g"


def fig5() -> Iterator[RunSpec]:
    """Yield which network profits from decay, and which learning rate would be the best without."""
    networks = {"plain": (False, False), "branch norm": (True, False), "q/k norm": (False, True), "both": (True, True)}
    axes = {("model.branch_norm", "model.qk_norm"): networks, "decay.weight_decay": (0.0, 0.3), "seed": (0, 1, 2)}
    yield from grid(SMALL, axes, names={("model.branch_norm", "model.qk_norm"): "network"}, labels={"lr": 6e-3})
    for name, norms in (("plain", False), ("both", True)):
        base = replace(SMALL, model=replace(SMALL.model, branch_norm=norms, qk_norm=norms))
        rates = {"optimizer.lr": (1e-2, 3e-2, 1e-1), "seed": (0, 1, 2)}
        yield from grid(base, rates, labels={"network": name, "wd": 0.0})


def fig7_search() -> Iterator[RunSpec]:
    """Yield where bfloat16 diverges and float32 does not, which decay prevents it, and whether a run comes back."""
    seeds = (0, 1, 2, 3)
    labels = {"clip": "1", "ends": "when it diverges"}
    both = {"precision": ("bfloat16", "float32")}
    low = {"optimizer.lr": (0.03, 0.1, 0.3, 0.5), "decay.weight_decay": (0.0,)}
    yield from grid(fig7.SMALL, both | low | {"seed": seeds}, labels=labels)
    large = replace(fig7.SMALL, optimizer=replace(fig7.SMALL.optimizer, lr=1.0))
    decays = {"decay.weight_decay": (0.0, 0.01, 0.03, 0.1, 0.3)}
    yield from grid(large, both | decays | {"seed": seeds}, labels=labels | {"lr": 1.0})
    large = replace(large, precision="bfloat16")
    labels |= {"precision": "bfloat16", "lr": 1.0}
    unclipped = replace(large, optimizer=replace(large.optimizer, clip=None))
    yield from grid(unclipped, {"decay.weight_decay": (0.0,), "seed": seeds}, labels=labels | {"clip": "none"})
    own = fig7.EXPERIMENT.seeds["mini"]
    yield from grid(large, {"decay.weight_decay": (0.01, 0.03), "seed": own}, labels=labels)
    lasting = replace(large, divergence=Divergence(rise=1.0, patience=100, stop=False))
    axes = {"decay.weight_decay": (0.0, 0.01, 0.03, 0.1), "seed": own}
    yield from grid(lasting, axes, labels=labels | {"ends": "at step 600"})


def fig15() -> Iterator[RunSpec]:
    """Yield penalties in the loss, over the range in which they do something."""
    base = replace(SMALL, steps=2000, decay=replace(SMALL.decay, rule="loss-l2"))
    yield from grid(base, {"decay.weight_decay": (0.0, 1e-4, 3e-4, 1e-3), "seed": (0,)})


def fig16() -> Iterator[RunSpec]:
    """Yield learning rates of momentum SGD, with decays that shrink a matrix by 0.1 and 0.3 % a step."""
    for lr in (0.3, 1.0, 3.0):
        optimizer = Optimizer(name="sgd", lr=lr, momentum=0.9, clip=SMALL.optimizer.clip)
        base = replace(SMALL, steps=2000, optimizer=optimizer, decay=replace(SMALL.decay, rule="l2"))
        decays = (0.0, 1e-4 / lr, 3e-4 / lr)
        yield from grid(base, {"decay.weight_decay": decays, "seed": (0, 1, 2)}, labels={"lr": lr})


def fig20() -> Iterator[RunSpec]:
    """Yield learning rates in bfloat16, to see where the best one is."""
    base = replace(fig7.SMALL, precision="bfloat16")
    yield from grid(base, {"optimizer.lr": (1e-3, 2e-3, 4e-3, 1e-2, 3e-2, 1e-1), "seed": (0, 1, 2)})


SEARCHES = {"fig5": fig5, "fig7": fig7_search, "fig15": fig15, "fig16": fig16, "fig20": fig20}


def table(specs: Sequence[RunSpec], rows: dict[str, RunRow]) -> pd.DataFrame:
    """Return a row for each setting: seeds, how many diverged, and the final training losses of the others.

    Where decays are compared, also the difference to no decay, paired by seed.
    """
    settings: dict[tuple[tuple[str, object], ...], dict[object, RunRow]] = {}
    for spec in specs:
        key = tuple(sorted((k, v) for k, v in spec.labels.items() if k != "seed" and not k.endswith("_value")))
        settings.setdefault(key, {})[spec.labels["seed"]] = rows[spec.id]
    found = []
    for key, by_seed in settings.items():
        losses = _losses(by_seed)
        row = {**dict(key), "seeds": " ".join(map(str, sorted(by_seed))), "diverged": len(by_seed) - len(losses)}
        row["spikes that stay"] = sum("spike" in r.summary for r in by_seed.values())
        if losses:
            values = list(losses.values())
            row |= {"mean": sum(values) / len(values), "lowest": min(values), "highest": max(values)}
        none = _losses(settings.get(tuple(sorted({**dict(key), "wd": 0.0}.items())), {})) if dict(key).get("wd") else {}
        differences = [losses[seed] - none[seed] for seed in losses if seed in none]
        if differences:
            row["minus no decay"] = " ".join(f"{d:+.3f}" for d in differences)
        found.append(row)
    return pd.DataFrame(found).round({"mean": 3, "lowest": 3, "highest": 3})


def _losses(by_seed: dict[object, RunRow]) -> dict[object, float]:
    return {seed: float(row.summary["train/loss"]) for seed, row in by_seed.items() if row.status == "done"}


def main(
    search: tyro.conf.Positional[Literal["fig5", "fig7", "fig15", "fig16", "fig20"]],
    store: str = "search.db",
    out: Path | None = None,
    workers: int | None = None,
) -> None:
    """Train what the store lacks and print the table.

    Args:
        search: Whose recipe.
        store: Database with the runs; run the same command again to go on after an interruption.
        out: Write the table there, too, as CSV.
        workers: Runs trained at the same time; chosen from the machine by default.
    """
    specs = list(SEARCHES[search]())
    with Store(store) as database:
        if launch(database.url, [Run.of(spec.config) for spec in specs], workers=workers).interrupted:
            return
        rows = {row.id: row for row in database.rows([spec.id for spec in specs])}
    found = table(specs, rows)
    print(found.to_string(index=False, na_rep=""))
    if out is not None:
        found.to_csv(out, index=False, float_format=DIGITS)


if __name__ == "__main__":
    tyro.cli(main)
