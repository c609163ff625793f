"""What does it save to train fine-tuned copies side by side, as in Figures 2 and 3, instead of one after another?

One parent of the small residual network writes snapshots; its copies are then trained through the launcher by one
worker, each by itself, and as the launcher chooses for the machine: by several workers, several copies in each, in
interleaved repetitions, starting the processes included. The copies are the same runs, so their results are compared
too: side by side changes no bit.

    python benchmarks/copies.py [--copies 8] [--epochs 40] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from decaylab.experiments.run_spec import RunSpec
from decaylab.launch.backends.local import launch
from decaylab.launch.scheduler import Run
from decaylab.store.store import Store
from decaylab.studies.why_weight_decay.recipes_resnet import DECAYED, fine_tuned_copies, trained


def family(copies: int, epochs: int) -> tuple[list[RunSpec], list[RunSpec]]:
    """Return a parent that is trained for as many epochs as it has copies, and its copies."""
    recipe = DECAYED["mini"]
    starts = tuple(range(1, copies + 1))
    recipe = replace(recipe, base=replace(recipe.base, epochs=copies), rates=(0.1,), starts=starts, epochs=epochs)
    parents = trained(recipe, (0,))
    return parents, fine_tuned_copies(recipe, parents)


def train(specs: Sequence[RunSpec], store: Path, *, side_by_side: bool) -> float:
    """Train runs and return the seconds it took."""
    runs = [Run.of(spec.config) for spec in specs]
    if not side_by_side:
        runs = [replace(run, company=None) for run in runs]
    began = time.perf_counter()
    report = launch(str(store), runs, workers=None if side_by_side else 1, progress=False)
    assert len(report.done) == len(specs), report
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=40, help="length of a copy")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    parents, copies = family(arguments.copies, arguments.epochs)
    ways = {"one after another": False, "side by side": True}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(arguments.repeats):
            for name, side_by_side in ways.items():
                store = Path(folder) / f"{name} {repeat}" / "runs.db"
                store.parent.mkdir()
                train(parents, store, side_by_side=False)
                seconds[name].append(train(copies, store, side_by_side=side_by_side))
                with Store(store) as database:
                    losses.append(database.table([spec.id for spec in copies], ["train/loss"]).value.tolist())
    assert all(one == losses[0] for one in losses), "the copies differ"
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in middle.items():
        print(f"{len(copies)} copies of {arguments.epochs} epochs {name:<20}{value:7.1f} s")
    print(f"ratio {middle['one after another'] / middle['side by side']:.2f}")


if __name__ == "__main__":
    main()
