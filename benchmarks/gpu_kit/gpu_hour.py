"""How long does each figure take at the budget ``gpu-hour`` here? From a few steps of its runs, uncompiled.

The data need not be there: steps cost the same on random images of CIFAR's size and on bytes of Python's library.
"""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from decaylab import data, studies
from decaylab.config.cost import num_steps
from decaylab.config.schema import AnyRun, LanguageData, LanguageRun, Probes
from decaylab.train import tasks
from decaylab.train.distributed import Processes
from decaylab.train.trainer import Training
from gpu_kit.record import wait
from gpu_kit.sections import Environment

FIGURES = ("fig1", "fig3", "fig5", "fig7")


def measure(environment: Environment) -> None:
    """Estimate each figure's minutes without evaluations and curvature."""
    budget, figures = ("smoke", ("fig5",)) if environment.smoke else ("gpu-hour", FIGURES)
    vision, digest = data.vision, tasks.data_digest
    data.vision, tasks.data_digest = random_images, nothing
    try:
        for figure in figures:
            with environment.record.check(f"steps of {figure} at {budget}"):
                seconds = 0.0
                specs = studies.get(figure).runs(budget)
                kinds: dict[Any, float] = {}
                for spec in specs:
                    key = kind(spec.config)
                    if key not in kinds:
                        kinds[key] = step_seconds(spec.config, environment)
                    seconds += kinds[key] * num_steps(spec.config)
                environment.record.number(
                    f"{figure} at {budget}: {len(specs)} runs one after another", seconds / 60, "minutes of steps",
                    step_ms=", ".join(f"{1e3 * each:.1f}" for each in kinds.values()),
                )  # fmt: skip
    finally:
        data.vision, tasks.data_digest = vision, digest


def kind(config: AnyRun) -> Any:
    """Return what decides the time of a step."""
    return config.model, config.precision, config.weights, config.stochastic_rounding, config.batch_size


def step_seconds(config: AnyRun, environment: Environment) -> float:
    """Return the seconds of a training step."""
    probes = Probes(names=config.probes.names, every=config.probes.every)
    settings: dict[str, Any] = {"compile": False, "probes": probes, "init_from": None}
    if isinstance(config, LanguageRun):
        settings["data"] = LanguageData(corpus="stdlib", tokenizer="bytes")
        if environment.smoke:
            settings["model"] = replace(config.model, vocab_size=320)
    training = Training(replace(config, **settings), nowhere, None, Processes(device=environment.device), None)
    count = 4 if environment.smoke else 40
    for step in range(3):
        training.step(step)
    wait(environment.device)
    began = time.perf_counter()
    for step in range(3, 3 + count):
        training.step(step)
    wait(environment.device)
    return (time.perf_counter() - began) / count


def nowhere(record: Any) -> None:
    """Keep nothing."""


def nothing(config: Any) -> None:
    """Return that there is no file of data."""


def random_images(dataset: str, **options: Any) -> SimpleNamespace:
    """Return what stands for CIFAR: images of its size and number."""
    classes = 100 if dataset == "cifar100" else 10
    x, y = torch.randn(50_000, 3, 32, 32), torch.randint(0, classes, (50_000,))
    return SimpleNamespace(
        train_x=x, train_y=y, test_x=x[:1000], test_y=y[:1000], num_classes=classes, fingerprint="random"
    )
