"""The settings that the residual-network figures share (2, 3, 8, 9, 12, 13): on the sphere, and with weight decay.

Fine-tuned copies, an early-stopped gradient flow from where a run is, are runs of their own that start from a snapshot
of it. So they are trained side by side, and figures share them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from decaylab.config.identity import run_id
from decaylab.config.schema import Averages, Decay, Evaluation, InitFrom, Probes, VisionData, VisionModel, VisionRun
from decaylab.experiments.chart_data import Data
from decaylab.experiments.quantity import Quantity
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.schedules import Schedule

if TYPE_CHECKING:
    from decaylab.experiments.results import Results

SEEDS: dict[str, Sequence[int]] = {"smoke": (0,), "mini": (100, 101, 102, 103, 104), "paper": (0, 1, 2, 3, 4)}
RATES = ("small", "middle", "large")
TRAINED: dict[str, Label] = {"phase": "trained"}
COPIES: dict[str, Label] = {"phase": "fine-tuned"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One study at one budget.

    Attributes:
        base: The settings that all its runs share; its learning rate drops half way.
        rates: Learning rates of the first phase.
        named: The three of them that claims speak of as small, middle and large, and whose snapshots are fine-tuned.
        starts: Epochs of the snapshots.
        epochs: Epochs of fine-tuning.
        averages: Names of the short and the long moving average, as they stand in metrics.
    """

    base: VisionRun
    rates: tuple[float, ...]
    named: tuple[float, float, float]
    starts: tuple[int, ...]
    epochs: int
    averages: tuple[str, str] = ("ema0.95", "ema0.999")


# Both studies at the paper's size. The authors' program for the fine-tuned copies keeps the large learning rate for all
# of its 100 epochs, their training program lets it drop: one run of 200 epochs with a drop half way is both.
_PAPER = VisionRun(
    model=VisionModel(architecture="resnet18", width=64),
    data=VisionData(dataset="cifar10"),
    evaluation=Evaluation(every=2),
    probes=Probes(names=("norms", "effective_lr"), every=391, curvature=("hessian_trace",), curvature_points=5000),
    precision="float16",
    batch_size=128,
    epochs=200,
)
_MINI = VisionRun(
    model=VisionModel(architecture="resnet_small", width=8),
    data=VisionData(dataset="digits", train_size=256),
    evaluation=Evaluation(every=10, batch_size=512),
    probes=Probes(
        names=("norms", "effective_lr"), every=40, curvature=("hessian_trace",), curvature_every=2, curvature_points=256
    ),
    batch_size=32,
    epochs=200,
)


def _decayed(base: VisionRun, weight_decay: float, final_lr: float, averages: tuple[float, ...]) -> VisionRun:
    curvature = ("hessian_trace", "jacobian")
    places = ("iterate", *(f"ema{a:g}" for a in averages))
    return replace(
        base,
        decay=Decay(rule="l2", weight_decay=weight_decay),
        schedule=Schedule(kind="two_phase", drop_at=(0.5,), final_lr=final_lr),
        averages=Averages(ema=averages),
        probes=replace(base.probes, curvature=curvature, curvature_at=places),
    )


def _on_the_sphere(base: VisionRun, final_lr: float) -> VisionRun:
    return replace(
        base,
        model=replace(base.model, scale_invariant=True),
        decay=Decay(rule="sphere_projection", options=(("radius", 1.0),)),
        schedule=Schedule(kind="two_phase", drop_at=(0.5,), final_lr=final_lr),
    )


def _smoke(recipe: Recipe) -> Recipe:
    """Return the same recipe cut down to a second or two: the ends of the range, one snapshot."""
    base = recipe.base
    probes = replace(base.probes, every=2, curvature_every=100, curvature_points=16)
    base = replace(
        base,
        data=replace(base.data, train_size=64),
        evaluation=replace(base.evaluation, every=1),
        probes=probes,
        epochs=2,
    )
    return replace(recipe, base=base, rates=recipe.named, starts=(1,), epochs=1)


_STARTS = tuple(range(1, 100, 2))  # from the end of the first epoch on, every second one
_SPHERE_MINI = Recipe(
    base=_on_the_sphere(_MINI, final_lr=1e-4),
    rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 2e-2, 3e-2),
    named=(1e-3, 3e-3, 1e-2),
    starts=(10, 30, 60, 100),
    epochs=40,
)
_DECAYED_MINI = Recipe(
    base=_decayed(_MINI, weight_decay=0.02, final_lr=0.01, averages=(0.8, 0.98)),
    rates=(0.05, 0.1, 0.2),
    named=(0.05, 0.1, 0.2),
    starts=(10, 30, 60, 100),
    epochs=40,
    averages=("ema0.8", "ema0.98"),
)
SPHERE: Mapping[str, Recipe] = {
    "smoke": _smoke(_SPHERE_MINI),
    "mini": _SPHERE_MINI,
    "paper": Recipe(
        base=_on_the_sphere(_PAPER, final_lr=1e-4),
        rates=(1e-4, 5e-4, 7.5e-4, 1e-3, 2e-3, 3e-3, 4e-3, 5e-3),
        named=(1e-3, 3e-3, 5e-3),
        starts=_STARTS,
        epochs=100,
    ),
}
DECAYED: Mapping[str, Recipe] = {
    "smoke": _smoke(_DECAYED_MINI),
    "mini": _DECAYED_MINI,
    "paper": Recipe(
        base=_decayed(_PAPER, weight_decay=0.015, final_lr=1e-3, averages=(0.95, 0.999)),
        rates=(0.1, 0.15, 0.2),
        named=(0.1, 0.15, 0.2),
        starts=_STARTS,
        epochs=100,
    ),
}


def trained(recipe: Recipe, seeds: Sequence[int], **labels: Label) -> list[RunSpec]:
    """Return one run for each learning rate and seed.

    Args:
        recipe: The study.
        seeds: The seeds.
        labels: Further labels.

    Returns:
        The runs with the labels lr (the number), rate (small, middle, large, or ``other``), phase, start and seed.
    """
    runs = []
    names = dict(zip(recipe.named, RATES, strict=True))
    for lr in recipe.rates:
        for seed in seeds:
            config = replace(
                recipe.base,
                optimizer=replace(recipe.base.optimizer, lr=lr),
                snapshots_at=recipe.starts if lr in names else (),
                seed=seed,
            )
            own: dict[str, Label] = {"lr": lr, "rate": names.get(lr, "other"), **TRAINED, "start": 0, "seed": seed}
            runs.append(RunSpec(config=config, labels={**own, **labels}))
    return runs


def fine_tuned_copies(recipe: Recipe, parents: Sequence[RunSpec]) -> list[RunSpec]:
    """Return runs that fine-tune the snapshots of other runs with the small learning rate of their second phase.

    As in the authors' code there is no weight decay (on the sphere the projection stays), and the learning rate is
    constant. A copy is measured at its start and at its end.

    Args:
        recipe: The study.
        parents: Its trained runs; those without snapshots have no copies.
    """
    copies = []
    for parent in parents:
        config = parent.config
        assert isinstance(config, VisionRun)
        steps = -(-(config.data.train_size or 50_000) // config.batch_size)
        final_lr = config.schedule.final_lr
        assert final_lr is not None
        origin = run_id(config)
        for start in config.snapshots_at:
            copy = replace(
                config,
                optimizer=replace(config.optimizer, lr=final_lr),
                decay=replace(config.decay, weight_decay=0.0),
                schedule=Schedule(),
                averages=Averages(),
                evaluation=replace(config.evaluation, every=recipe.epochs),
                probes=replace(config.probes, curvature_every=1, curvature_at=("iterate",)),
                init_from=InitFrom(run=origin, step=start * steps),
                epochs=recipe.epochs,
                snapshots_at=(),
            )
            copies.append(RunSpec(config=copy, labels={**parent.labels, **COPIES, "start": start}))
    return copies


def drop(results: Results) -> list[tuple[float, str]]:
    """Return where the learning rate drops, for a chart over epochs."""
    config = results.specs[0].config
    assert isinstance(config, VisionRun)
    return [(config.epochs / 2, "LR drops")]


def per_budget(quantities: Mapping[str, Quantity]) -> Quantity:
    """Return a quantity whose metric depends on the budget, such as that of the long average."""
    first = next(iter(quantities.values()))
    return Quantity(
        name=first.name,
        unit=first.unit,
        read=lambda results, run: quantities[results.budget].read(results, run),
    )


def data_per_budget(tables: Mapping[str, Data]) -> Data:
    """Return chart data whose metrics depend on the budget."""
    return lambda results: tables[results.budget](results)


_CIFAR = (
    "ResNet-18 on CIFAR-10 as in appendix B: batch 128, no momentum, no augmentation, float16 autocast, traces on "
    "5,000 training points. One run of 200 epochs with the drop at 100 stands for two programs of the authors, one of "
    "which keeps the large learning rate for its 100 epochs while the other lets it drop. Copies start every second "
    "epoch from the end of the first one on, and run 100 epochs"
)
_SIDE_BY_SIDE = (
    "Each copy is a run of its own that starts from a snapshot, so that copies are trained side by side instead of one "
    "after another inside their parent"
)


def sphere_recipes() -> dict[str, str]:
    """Return how the runs on the sphere were chosen, by budget."""
    return {
        "smoke": "Two epochs on 64 digits, copies of one epoch: proves that the path works.",
        "mini": "Handwritten digits (8x8), 256 training images, batch 32, 200 epochs; scale-invariant residual network "
        "of 3 stages x 2 blocks, width 8, all weights together on the unit sphere. LR 1e-4 to 3e-2, 1e-4 from epoch "
        "100 on. Copies of epochs 10, 30, 60 and 100 of three rates, 40 epochs at 1e-4. The last layer is fixed at its "
        "small initial value, so the training loss cannot fall below about 0.2 nats at this width, though the training "
        "error does reach zero. The search was thin: LR 1e-4 to 3e-2 on seed 0 and up to 1e-3 on seed 1, without 2e-2; "
        f"the seeds shown were not used. {_counted('mini', SPHERE)}",
        "paper": f"Scale-invariant {_CIFAR} at LR 1e-4. Weights on the unit sphere, projected after every step as in "
        "equation 3; the authors' programs project once an epoch or only at the start, which the last chart compares. "
        f"{_counted('paper', SPHERE)}",
    }


def decayed_recipes() -> dict[str, str]:
    """Return how the runs with weight decay were chosen, by budget."""
    return {
        "smoke": "Two epochs on 64 digits, copies of one epoch: proves that the path works.",
        "mini": "Handwritten digits (8x8), 256 training images, batch 32, 200 epochs; residual network of 3 stages x 2 "
        "blocks, width 8, weight decay 0.02 (L2, on all weights). LR 0.05, 0.1 and 0.2 (0.8, 1.6 and 3.2 decay "
        "timescales in the first phase), 0.01 from epoch 100 on. Copies of epochs 10, 30, 60 and 100, without decay, "
        "40 epochs at 0.01. Averages with coefficients 0.8 and 0.98, because their memory is about the same share of "
        f"the first phase as that of the paper's. Searched on seed 0 (LR, and 0.003 or 0.01 for the "
        f"copies); the seeds shown were not used. {_counted('mini', DECAYED)}",
        "paper": f"{_CIFAR} at LR 1e-3 without weight decay (the authors' default there). L2 0.015 on all weights, LR "
        "0.1, 0.15 and 0.2, 1e-3 from epoch 100 on; the authors' README repeats one of the three commands, the paper's "
        f"three rates are taken. {_counted('paper', DECAYED)}",
    }


def _counted(budget: str, recipes: Mapping[str, Recipe]) -> str:
    recipe, seeds = recipes[budget], len(SEEDS[budget])
    copies = len(recipe.named) * len(recipe.starts) * seeds
    longest = recipe.base.epochs // 2 + recipe.epochs
    in_turn = recipe.base.epochs // 2 + len(recipe.starts) * recipe.epochs
    return (
        f"{_SIDE_BY_SIDE}: {copies} copies of {recipe.epochs} epochs; with a worker for each, the longest chain is "
        f"{longest} epochs instead of {in_turn}."
    )
