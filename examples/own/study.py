"""A study of your own, trained by a function of your own: does weight decay help logistic regression with few examples?

    decaylab reproduce examples/own/study.py --budget mini --store study.db
    decaylab show examples/own/study.py
    decaylab report examples/own/study.py --store study.db
    decaylab list --from examples/own/study.py --store study.db

The function needs neither decaylab's loop nor torch. Its runs are leased, resumed, charted and judged like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from decaylab.experiments import Chart, Claim, Experiment, RunSpec, all_of, final, grid, lower


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """One training of logistic regression on a line that separates two clouds, by gradient descent with decay."""

    lr: float = 0.5
    weight_decay: float = 0.0
    examples: int = 40
    dimensions: int = 30
    steps: int = 200
    seed: int = 0


def train(
    config: Logistic, record: Callable[[Mapping[str, Any]], None], heartbeat: Callable[[int, int], bool]
) -> dict[str, float]:
    """Train one run: w <- w - lr (g + weight_decay w). Records the losses every 20 steps."""
    generator = np.random.default_rng(config.seed)
    truth = generator.normal(size=config.dimensions)

    def draw(size: int) -> tuple[Any, Any]:
        x = generator.normal(size=(size, config.dimensions))
        return x, np.sign(x @ truth + 3 * generator.normal(size=size))

    (x, y), (test_x, test_y) = draw(config.examples), draw(2000)
    w = np.zeros(config.dimensions)
    for step in range(config.steps + 1):
        if step % 20 == 0:
            heartbeat(step, config.steps)
            record(
                {
                    "step": step,
                    "train/loss": np.logaddexp(0, -y * (x @ w)).mean(),
                    "test/loss": np.logaddexp(0, -test_y * (test_x @ w)).mean(),
                    "weights/norm": np.linalg.norm(w),
                }
            )
        gradient = -(x * (y / (1 + np.exp(y * (x @ w))))[:, None]).mean(0)
        w -= config.lr * (gradient + config.weight_decay * w)
    return {"final_norm": float(np.linalg.norm(w))}


def plan(budget: str, seeds: Sequence[int]) -> tuple[RunSpec, ...]:
    """Return every weight decay with every seed."""
    base = Logistic(steps=40 if budget == "smoke" else 200)
    return grid(base, {"weight_decay": (0.0, 0.01, 0.1), "seed": seeds}, names={"weight_decay": "wd"})


EXPERIMENT = Experiment(
    id="own_logistic",
    title="Weight decay in logistic regression with few examples",
    question="Does weight decay lower the test loss where the examples can be separated?",
    seeds={"smoke": (0, 1, 2), "mini": range(10, 18)},
    plan=plan,
    train=train,
    charts=(
        Chart(
            id="test-loss",
            title="Test loss",
            data=lambda results: results.metric("test/loss"),
            x="step",
            color="wd",
            palette="wd",
            y_title="nats",
        ),
    ),
    claims=(
        Claim(
            id="decay-helps",
            sentence="Weight decay lowers the test loss and the norm of the weights.",
            check=all_of(
                lower(final("test/loss"), this={"wd": 0.1}, than={"wd": 0.0}),
                lower(final("weights/norm"), this={"wd": 0.1}, than={"wd": 0.0}),
            ),
        ),
    ),
    recipe={"smoke": "40 steps", "mini": "200 steps, eight seeds"},
)
