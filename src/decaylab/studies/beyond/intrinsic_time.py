"""Intrinsic training time: is the effect of a large learning rate that it trains longer, counted in decay times?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from decaylab.config.schema import Averages, Decay, Evaluation, Probes, VisionData, VisionModel, VisionRun
from decaylab.experiments.chart_data import curves, finals
from decaylab.experiments.checks import equivalent, higher
from decaylab.experiments.quantity import final
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment
from decaylab.schedules import Schedule
from decaylab.studies.beyond.recipes import FIRST_SEED

if TYPE_CHECKING:
    import pandas as pd

    from decaylab.experiments.results import Results

ERROR = final("test/error", name="test error")
EPOCHS, TIME = "equal epochs", "equal lambda x sum of LR"


@dataclass(frozen=True)
class _Family:
    """One kind of network.

    Attributes:
        base: The settings that all its runs share.
        rates: Learning rates of the first phase, small, middle and large.
        first: Epochs of the first phase at the large one.
        last: Epochs of the second phase, the same for all.
        final_lr: Learning rate of the second phase.
    """

    base: VisionRun
    rates: tuple[float, float, float]
    first: int
    last: int
    final_lr: float


_DIGITS = VisionRun(
    data=VisionData(dataset="digits", train_size=256, seed=None),
    decay=Decay(rule="l2", weight_decay=0.02),
    evaluation=Evaluation(every=40, batch_size=512),
    probes=Probes(names=("norms",), every=400),
    batch_size=32,
)
_CIFAR = VisionRun(
    data=VisionData(dataset="cifar10", seed=None),
    averages=Averages(),
    evaluation=Evaluation(every=10),
    probes=Probes(names=("norms",), every=390),
    precision="float16",
    batch_size=128,
)
_FAMILIES: dict[str, dict[str, _Family]] = {
    "mini": {
        # 8 steps an epoch x 0.2 x 0.02: 5.1 decay timescales in 160 epochs.
        "ResNet": _Family(_DIGITS, (0.02, 0.05, 0.2), 160, 40, 1e-3),
        # 16 steps an epoch x 0.1 x 0.02: 5.1 in 160 epochs.
        "VGG": _Family(
            replace(
                _DIGITS,
                model=VisionModel(architecture="vgg_small"),
                data=VisionData(dataset="digits", train_size=512, label_noise=0.2, seed=None),
            ),
            (0.02, 0.05, 0.1),
            160,
            40,
            1e-3,
        ),
    },
    "paper": {
        # 391 steps an epoch x 0.08 x 0.0125: 78 timescales in 200 epochs.
        "ResNet": _Family(
            replace(
                _CIFAR,
                model=VisionModel(architecture="resnet18", width=64),
                decay=Decay(rule="l2", weight_decay=0.0125),
            ),
            (0.02, 0.04, 0.08),
            200,
            100,
            1e-4,
        ),
        "VGG": _Family(
            replace(
                _CIFAR,
                model=VisionModel(architecture="vgg16", width=64),
                decay=Decay(rule="l2", weight_decay=0.008),
            ),
            (0.02, 0.05, 0.1),
            200,
            100,
            1e-4,
        ),
    },
}
RATES = ("small", "middle", "large")


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    specs = []
    for network, family in _FAMILIES["paper" if budget == "paper" else "mini"].items():
        if budget == "smoke":
            base = replace(
                family.base,
                data=replace(family.base.data, train_size=64),
                model=replace(family.base.model, width=2, blocks=1),
                evaluation=replace(family.base.evaluation, every=1),
                probes=replace(family.base.probes, every=2),
            )
            family = replace(family, base=base, first=1, last=1)
        for name, lr in zip(RATES, family.rates, strict=True):
            for count in (EPOCHS, TIME) if name != "large" else (EPOCHS,):
                stretch = 1.0 if count == EPOCHS else family.rates[-1] / lr
                specs += [_run(network, family, name, lr, count, round(family.first * stretch), seed) for seed in seeds]
    return specs


def _run(network: str, family: _Family, name: str, lr: float, count: str, first: int, seed: int) -> RunSpec:
    epochs = first + family.last
    config = replace(
        family.base,
        optimizer=replace(family.base.optimizer, lr=lr),
        schedule=Schedule(kind="two_phase", drop_at=(first / epochs,), final_lr=family.final_lr),
        evaluation=replace(family.base.evaluation, every=max(1, epochs // 20)),
        epochs=epochs,
        seed=seed,
    )
    labels: dict[str, Label] = {"network": network, "rate": name, "lr": lr, "count": count, "seed": seed}
    return RunSpec(config=config, labels=labels)


def _errors(results: Results) -> pd.DataFrame:
    """Return the final errors; the run of the largest learning rate stands in both series."""
    import pandas as pd

    frame = finals("test/error")(results)
    largest = frame[frame["rate"] == "large"]
    return pd.concat([frame, largest.assign(count=TIME)], ignore_index=True)


def _at(network: str, rate: str, count: str = EPOCHS) -> dict[str, Label]:
    return {"network": network, "rate": rate, "count": count}


EXPERIMENT = Experiment(
    id="intrinsic_time",
    title="A small and a large learning rate at equal epochs and at equal intrinsic time",
    paper="own",
    question="The paper's Fig. 1 to 3 compare a large with a small learning rate at equal epochs, where the small one "
    "has lived through fewer decay timescales. What is left of the difference when each trains until weight decay "
    "times the sum of its learning rates is the same, with BatchNorm and without?",
    seeds={
        "smoke": (FIRST_SEED,),
        "mini": tuple(range(FIRST_SEED, FIRST_SEED + 6)),
        "paper": tuple(range(FIRST_SEED, FIRST_SEED + 3)),
    },
    plan=_plan,
    charts=(
        Chart(
            id="error",
            title="Final test error against the learning rate of the first phase",
            data=_errors,
            x="lr",
            color="count",
            panel="network",
            log_x=True,
            share_y=False,
            x_title="learning rate of the first phase",
            y_title="test error (%)",
            color_title="",
            caption="A flat line: only the time counts. The largest learning rate is the same run in both. Mean over "
            "draws of data, order and initialisation with its 95 % interval.",
        ),
        Chart(
            id="norm",
            title="Norm of the weights",
            data=curves("weights/norm", setting="LR {lr:g}, {count}"),
            x="fraction",
            color="setting",
            panel="network",
            log_y=True,
            share_y=False,
            x_title="fraction of training",
            y_title="norm",
            color_title="",
            caption="Equilibrium is where it does not move any more.",
        ),
    ),
    claims=(
        Claim(
            id="large-is-better-at-equal-epochs",
            sentence="Residual network with BatchNorm: at equal epochs, the small learning rate ends with a higher "
            "test error than the large one.",
            check=higher(ERROR, this=_at("ResNet", "small"), than=_at("ResNet", "large")),
        ),
        Claim(
            id="nothing-left-at-equal-time",
            sentence="Residual network with BatchNorm: at equal weight decay times sum of learning rates, small and "
            "large end within 1.5 percentage points of each other.",
            check=equivalent(ERROR, this=_at("ResNet", "small", TIME), that=_at("ResNet", "large"), margin=1.5),
        ),
        Claim(
            id="middle-too",
            sentence="Residual network with BatchNorm: so do the middle learning rate and the large one.",
            check=equivalent(ERROR, this=_at("ResNet", "middle", TIME), that=_at("ResNet", "large"), margin=1.5),
        ),
        Claim(
            id="something-left-without-norms",
            sentence="VGG without normalisation: at equal weight decay times sum of learning rates, the small learning "
            "rate still ends with a higher test error than the large one.",
            check=higher(ERROR, this=_at("VGG", "small", TIME), than=_at("VGG", "large")),
        ),
    ),
    recipe={
        "smoke": "Two to eleven epochs on 64 digits: proves that the path works. One seed decides nothing.",
        "mini": "Handwritten digits (8x8), batch 32, SGD without momentum, weight decay 0.02 (L2, on all weights). "
        "Residual network of Fig. 1 (3 stages x 2 blocks, width 8, 256 images): LR 0.02, 0.05 and 0.2. VGG without "
        "BatchNorm (width 8, 512 images, 20 % of the training labels flipped): LR 0.02, 0.05 and 0.1. The first phase "
        "has 160 epochs, or as many as give the small LR the lambda x sum of LR of the large one (5.1 timescales); "
        "then 40 epochs at 1e-3 for all. The seed draws the images too. Earlier runs at 3.2 timescales on one split "
        "gave -0.04 and -0.17 points with BatchNorm and +3.1 without; seeds and splits are fresh. 60 runs.",
        "paper": "ResNet-18 and VGG-16 on CIFAR-10 with the rates' upper end and the decay of Fig. 1, 200 epochs at "
        "the large learning rate and 100 at 1e-4. Nothing was searched.",
    },
)
