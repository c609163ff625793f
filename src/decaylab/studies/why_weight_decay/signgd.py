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
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from decaylab.experiments.evidence import Evidence
    from decaylab.experiments.results import Results

    Numbers = npt.NDArray[np.float64]

DIMENSION, BATCH, STEPS = 50, 32, 2000
LR, DECAYS = 0.01, (0.0, 0.1, 0.3)
LR_SCHEDULE = schedules.Schedule(kind="cosine", final_ratio=0.1)
SEEDS: dict[str, Sequence[int]] = {"smoke": (0,), "mini": tuple(range(100, 110)), "paper": tuple(range(100, 110))}
INVARIANT, CONTROL = "scale-invariant loss", "the same loss, not normalised"


@dataclass(frozen=True)
class Paths:
    """What was seen, of some seeds at one weight decay.

    Attributes:
        distance: Length of the difference of the two directions after each step, shape (seeds, STEPS).
        effective_lr: The effective learning rate of each step, shape (seeds, STEPS).
    """

    distance: Numbers
    effective_lr: Numbers


@cache
def simulate(seeds: tuple[int, ...], invariant: bool) -> Mapping[float, Paths]:
    """Run both processes on the same batches, for all seeds and weight decays at once.

    Args:
        seeds: Each of a start, a teacher and batches.
        invariant: Whether the loss normalises the weights.

    Returns:
        By weight decay, what was seen.
    """
    import numpy as np

    generators = [np.random.default_rng(seed) for seed in seeds]
    teachers = np.stack([rng.standard_normal(DIMENSION) for rng in generators])
    decays = np.array(DECAYS)[:, None]
    w = np.repeat(np.stack([rng.standard_normal(DIMENSION) for rng in generators])[:, None], len(DECAYS), axis=1)
    u = w / _lengths(w)
    distance, effective = np.empty((2, STEPS, *w.shape[:2]))
    for step in range(STEPS):
        draws = [(rng.standard_normal((BATCH, DIMENSION)), rng.standard_normal(BATCH)) for rng in generators]
        x = np.stack([inputs for inputs, _ in draws])
        y = np.sign((x @ teachers[:, :, None])[..., 0] + np.stack([noise for _, noise in draws]))
        lr = schedules.value(LR_SCHEDULE, step, LR, STEPS)
        kept = 1 - lr * decays
        turn = lr / (kept * _lengths(w))
        w = kept * w - lr * np.sign(gradient(w, x, y, invariant))
        u = u - turn * np.sign(gradient(u, x, y, invariant))
        u /= _lengths(u)
        effective[step] = turn[..., 0]
        distance[step] = np.linalg.norm(w / _lengths(w) - u, axis=-1)
    return {wd: Paths(distance[:, :, i].T, effective[:, :, i].T) for i, wd in enumerate(DECAYS)}


def gradient(w: Numbers, x: Numbers, y: Numbers, invariant: bool) -> Numbers:
    r"""Return the gradient of the mean logistic loss :math:`\log(1 + e^{-y z})`, with z = x.w or 8 x.w / ||w||.

    Args:
        w: Weights, shape (S, K, D): K vectors for each of S data sets.
        x: Inputs, shape (S, B, D).
        y: Labels -1 or 1, shape (S, B).
        invariant: Whether z is normalised.

    Returns:
        Shape (S, K, D).
    """
    import numpy as np

    norm, scale = (_lengths(w), 8.0) if invariant else (np.ones(1), 1.0)
    direction = w / norm
    signs = y[:, None, :]
    slope = scale * ((-signs / (1 + np.exp(scale * signs * (direction @ x.swapaxes(1, 2))))) @ x) / y.shape[1]
    if invariant:
        slope = (slope - direction * (direction * slope).sum(axis=-1, keepdims=True)) / norm
    return np.asarray(slope)


def _lengths(w: Numbers) -> Numbers:
    import numpy as np

    return np.asarray(np.linalg.norm(w, axis=-1, keepdims=True))


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
            paths = simulate(_seeds(results), invariant)[weight_decay]
            for seed, path in zip(_seeds(results), getattr(paths, column), strict=True):
                values = np.maximum(path[steps], 1e-17)
                frames.append(
                    pd.DataFrame({"step": steps + 1, "value": values, "loss": name, "wd": weight_decay, "seed": seed})
                )
        return pd.concat(frames, ignore_index=True)

    return data


def _largest(name: str, claimed: tuple[float, float], *, invariant: bool) -> Check:
    def run(results: Results) -> Evidence:
        parts = []
        for weight_decay in DECAYS:
            largest = simulate(_seeds(results), invariant)[weight_decay].distance.max(axis=1)
            values: dict[Label, float] = dict(zip(_seeds(results), largest.tolist(), strict=True))
            comparison = statistics.mean_comparison(values, claimed, name=f"{name}, WD {weight_decay:g}")
            parts.append(evidence.from_comparison(comparison))
        return evidence.all_of(parts)

    return Check(f"Mean over seeds of the {name} {statistics.in_words(claimed)}, for every weight decay.", run)


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    return []  # nothing is trained: both processes are computed when the page is drawn


EXPERIMENT = Experiment(
    id="signgd",
    version=2,
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
