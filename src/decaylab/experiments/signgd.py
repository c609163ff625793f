r"""Appendix D.1: sign descent with weight decay moves as projected sign descent on the sphere does, computed exactly.

Both processes minimise a logistic loss over fresh batches by the signs of its gradients. The first one has decay,

.. math:: w \leftarrow (1 - \eta_t \lambda) w - \eta_t \operatorname{sign} \nabla \ell_t(w),

the second stays on the unit sphere with the effective learning rate that the first one has at that step,

.. math::
    u \leftarrow \frac{v}{\|v\|}, \qquad
    v = u - \frac{\eta_t}{(1 - \eta_t \lambda) \|w_t\|} \operatorname{sign} \nabla \ell_t(u).

If the loss depends on the direction of w alone, the signs agree and :math:`w_t / \|w_t\| = u_t`. The control is the
same loss without the normalisation: there the length of w matters and the two part. All of it is float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from decaylab import schedules
from decaylab.experiments import evidence, statistics
from decaylab.experiments.checks import Check
from decaylab.experiments.spec import Chart, Claim, Experiment, Label, RunSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from decaylab.experiments.evidence import Evidence
    from decaylab.experiments.results import Results

    Vector = npt.NDArray[np.float64]

DIMENSION, BATCH, STEPS = 50, 32, 2000
LR, DECAYS = 0.01, (0.0, 0.1, 0.3)
LR_SCHEDULE = schedules.Schedule(kind="cosine", final_ratio=0.1)
SEEDS: dict[str, Sequence[int]] = {"smoke": (0,), "mini": tuple(range(100, 110)), "paper": tuple(range(100, 110))}
INVARIANT, CONTROL = "scale-invariant loss", "the same loss, not normalised"


@dataclass(frozen=True)
class Paths:
    """What was seen of one seed.

    Attributes:
        distance: Length of the difference of the two directions after each step, shape (STEPS,).
        effective_lr: The effective learning rate of each step, shape (STEPS,).
    """

    distance: Vector
    effective_lr: Vector


@cache
def simulate(seed: int, weight_decay: float, invariant: bool) -> Paths:
    """Run both processes on the same batches.

    Args:
        seed: Of the start, the teacher and the batches.
        weight_decay: lambda.
        invariant: Whether the loss normalises the weights.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    teacher = rng.standard_normal(DIMENSION)
    w = rng.standard_normal(DIMENSION)
    u = w / np.linalg.norm(w)
    distance, effective = np.empty(STEPS), np.empty(STEPS)
    for step in range(STEPS):
        x = rng.standard_normal((BATCH, DIMENSION))
        y = np.sign(x @ teacher + rng.standard_normal(BATCH))
        lr = schedules.value(LR_SCHEDULE, step, LR, STEPS)
        kept = 1 - lr * weight_decay
        effective[step] = lr / (kept * np.linalg.norm(w))
        w = kept * w - lr * np.sign(gradient(w, x, y, invariant))
        u = u - effective[step] * np.sign(gradient(u, x, y, invariant))
        u /= np.linalg.norm(u)
        distance[step] = np.linalg.norm(w / np.linalg.norm(w) - u)
    return Paths(distance, effective)


def gradient(w: Vector, x: Vector, y: Vector, invariant: bool) -> Vector:
    r"""Return the gradient of the mean logistic loss :math:`\log(1 + e^{-y z})`, with z = x.w or 8 x.w / ||w||.

    Args:
        w: Weights, shape (D,).
        x: Inputs, shape (B, D).
        y: Labels -1 or 1, shape (B,).
        invariant: Whether z is normalised.

    Returns:
        Shape (D,).
    """
    import numpy as np

    if not invariant:
        return np.asarray(x.T @ (-y / (1 + np.exp(y * (x @ w)))) / len(y))
    norm = np.linalg.norm(w)
    direction = w / norm
    slope = 8 * x.T @ (-y / (1 + np.exp(8 * y * (x @ direction)))) / len(y)
    return np.asarray((slope - direction * (direction @ slope)) / norm)


def _seeds(results: Results) -> tuple[int, ...]:
    return tuple(SEEDS[results.budget])


def _curves(
    column: str, settings: Mapping[str, tuple[float, bool]], every: int = 20
) -> Callable[[Results], pd.DataFrame]:
    """Give one row a seed and step of something that was seen; a distance of exactly zero is drawn at 1e-17."""

    def data(results: Results) -> pd.DataFrame:
        import numpy as np
        import pandas as pd

        steps = np.arange(0, STEPS, every)
        frames = []
        for name, (weight_decay, invariant) in settings.items():
            for seed in _seeds(results):
                values = np.maximum(getattr(simulate(seed, weight_decay, invariant), column)[steps], 1e-17)
                frames.append(
                    pd.DataFrame({"step": steps + 1, "value": values, "loss": name, "wd": weight_decay, "seed": seed})
                )
        return pd.concat(frames, ignore_index=True)

    return data


def _largest(name: str, claimed: tuple[float, float], *, invariant: bool) -> Check:
    def run(results: Results) -> Evidence:
        parts = []
        for weight_decay in DECAYS:
            values: dict[Label, float] = {
                s: float(simulate(s, weight_decay, invariant).distance.max()) for s in _seeds(results)
            }
            comparison = statistics.mean_comparison(values, claimed, name=f"{name}, WD {weight_decay:g}")
            parts.append(evidence.from_comparison(comparison))
        return evidence.all_of(parts)

    return Check(f"Mean over seeds of the {name} {statistics.in_words(claimed)}, for every weight decay.", run)


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    return []  # nothing is trained: both processes are computed when the page is drawn


EXPERIMENT = Experiment(
    id="signgd",
    title="Sign descent with decay is projected sign descent on the sphere",
    paper="App. D.1",
    question="Is weight decay nothing but a change of the effective learning rate lr / ((1 - lr wd) ||w||), where the "
    "loss depends on the direction of the weights alone?",
    seeds=SEEDS,
    plan=_plan,
    charts=(
        Chart(
            id="distance",
            title="Distance between the two directions",
            data=_curves("distance", {INVARIANT: (0.1, True), CONTROL: (0.1, False)}),
            x="step",
            color="loss",
            log_y=True,
            x_title="step",
            y_title="length of the difference",
            color_title="loss",
            caption="Weight decay 0.1, mean over seeds with its 95 % interval. The unit of float64 is 2.2e-16.",
        ),
        Chart(
            id="effective-lr",
            title="Effective learning rate",
            data=_curves("effective_lr", {f"WD {wd:g}": (wd, True) for wd in DECAYS}),
            x="step",
            color="wd",
            palette="wd",
            log_y=True,
            x_title="step",
            y_title="lr / ((1 - lr wd) ||w||)",
            color_title="weight decay",
            caption="The scale-invariant loss. Decay keeps the weights shorter, so the same learning rate turns them "
            "more.",
        ),
    ),
    claims=(
        Claim(
            id="directions-agree",
            sentence="For a scale-invariant loss the directions agree to machine precision, for every weight decay.",
            check=_largest("largest distance of the directions", (0.0, 1e-12), invariant=True),
        ),
        Claim(
            id="not-for-other-losses",
            sentence="For a loss that is not scale-invariant they part.",
            check=_largest("largest distance of the directions without normalisation", (1e-2, 2.0), invariant=False),
        ),
    ),
    recipe={
        "smoke": "The computation with one seed.",
        "mini": f"Logistic regression on {DIMENSION} normal features with noisy labels, a fresh batch of {BATCH} each "
        f"step, {STEPS} steps, LR {LR:g} with cosine decay to a tenth, float64, ten seeds. Nothing was searched.",
        "paper": "The same as mini: the paper derives the identity and runs nothing.",
    },
)
