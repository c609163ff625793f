"""Fig. 3 on real CIFAR-10 images at a size that two CPU cores train in about an hour: a figure at another size.

    decaylab data get cifar10
    python examples/fig3_on_cifar10.py --store cifar.db --out cifar-page

It shows how to reuse a declaration: the charts and the claims of Fig. 3 stay as they are, only the runs are others.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import tyro

from decaylab.config.schema import Decay, Evaluation, VisionData, VisionModel
from decaylab.experiments.results import Results
from decaylab.launch.backends.local import launch
from decaylab.launch.scheduler import Run
from decaylab.reporting import build
from decaylab.store.store import Store
from decaylab.studies.why_weight_decay import fig3
from decaylab.studies.why_weight_decay.recipes_resnet import DECAYED, fine_tuned_copies, trained

SEEDS = (100, 101, 102)
_MINI = DECAYED["mini"]
# The paper's learning rates and decay. The long average remembers 50 of the 1,890 steps of the first phase, the same
# share as the paper's 1,000 of 39,100.
RECIPE = replace(
    _MINI,
    base=replace(
        _MINI.base,
        model=VisionModel(architecture="resnet18", width=8),
        data=VisionData(dataset="cifar10", train_size=4000),
        decay=Decay(rule="l2", weight_decay=0.015),
        evaluation=Evaluation(every=5, batch_size=500),
        probes=replace(_MINI.base.probes, every=63, curvature_every=2, curvature_points=500),
        batch_size=64,
        epochs=60,
    ),
    rates=(0.1, 0.15, 0.2),
    named=(0.1, 0.15, 0.2),
    starts=(3, 10, 30),
    epochs=10,
)
EXPERIMENT = replace(
    fig3.EXPERIMENT,
    id="fig3-cifar10",
    claims=tuple(claim for claim in fig3.EXPERIMENT.claims if "mini" in claim.budgets),
    title="Fig. 3 on 4,000 images of CIFAR-10 with a narrow ResNet-18",
    seeds={"mini": SEEDS},
    plan=lambda budget, seeds: (runs := trained(RECIPE, seeds)) + fine_tuned_copies(RECIPE, runs),
    recipe={
        "mini": "ResNet-18 of width 8 instead of 64 on 4,000 training images of CIFAR-10, tested on the test images "
        "that are there; batch 64, 60 epochs instead of 200, the paper's learning rates and weight decay 0.015, LR "
        "0.01 from epoch 30 on. Copies of epochs 3, 10 and 30, without decay, 10 epochs at 0.01. Traces on 500 "
        "training points. The second phase is a quarter of a decay timescale, so the norms have no time to meet. "
        "Nothing was searched for."
    },
    command="python examples/fig3_on_cifar10.py",
)


def main(store: str = "cifar.db", out: Path = Path("cifar-page"), workers: int | None = None) -> None:
    """Train what the store lacks, then write the page.

    Args:
        store: Database with the runs; run the same command again to go on after an interruption.
        out: Folder for the page, the charts and their tables.
        workers: Runs trained at the same time; chosen from the machine by default.
    """
    specs = EXPERIMENT.runs("mini")
    runs = [Run.of(spec.config) for spec in specs]
    with Store(store) as database:
        launch(database.url, runs, workers=workers)
        print(build([(EXPERIMENT, Results.from_store(specs, database, budget="mini"))], out))


if __name__ == "__main__":
    tyro.cli(main)
