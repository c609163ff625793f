r"""Fig. 10: what fine-tuning does, seen in a valley of two parameters that is computed when the page is drawn.

One example with the residual :math:`f(x, y) = \sqrt{h(x)}\,(y - a x^2)`, loss :math:`L = f^2 / 2`, and a label that is
wrong by Gaussian noise at every step, as label noise does it (Damian et al. 2021):

.. math:: w \leftarrow w - \eta \, (f(w) - \sigma \xi) \, \nabla f(w), \qquad \xi \sim N(0, 1).

So the noise has the covariance :math:`\sigma^2 \nabla f \nabla f^\top`, the shape of the Gauss-Newton matrix. The
bottom of the valley is the curve f = 0 on which every point has the loss zero, and there the trace of the Hessian is
:math:`|\nabla f|^2 = h(x) (1 + 4 a^2 x^2)`: one end of the valley is steeper than the other. For small steps the
theory expects the iterates to follow the gradient flow of :math:`L + \tfrac14 \eta \sigma^2 |\nabla f|^2`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from decaylab.experiments import evidence, statistics
from decaylab.experiments.checks import Check
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Chart, Claim, Experiment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from decaylab.experiments.evidence import Comparison, Evidence
    from decaylab.experiments.results import Results

    Point = npt.NDArray[np.float64]  # (S, 2): one point a seed


BEND = 0.35  # a: how much the valley bends
LR, NOISE = 0.05, 0.8
STEPS, EVERY = 2400, 40
FLOW_STEP, FLOW_STEPS = 0.02, 600
START = (1.8, BEND * 1.8**2)
SEEDS: dict[str, Sequence[int]] = {"smoke": (0,), "mini": tuple(range(100, 110)), "paper": tuple(range(100, 110))}
ITERATE, PROJECTION, REGULARISED = "SGD iterate", "gradient flow", "regularised path"


def _steepness(x: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return h(x) = 1 / 2 + x^2 and its derivative."""
    return 0.5 + x**2, 2 * x


def residual(w: Point) -> tuple[npt.NDArray[np.float64], Point]:
    """Return f and its gradient at points (S, 2): shapes (S,) and (S, 2)."""
    import numpy as np

    x, y = w[:, 0], w[:, 1]
    h, slope = _steepness(x)
    height = y - BEND * x**2
    root = np.sqrt(h)
    return root * height, np.stack([slope / (2 * root) * height - 2 * BEND * x * root, root], axis=1)


def trace(w: Point) -> npt.NDArray[np.float64]:
    """Return the trace of the Hessian of L, |grad f|^2 + f Laplace(f), shape (S,)."""
    import numpy as np

    x = w[:, 0]
    value, gradient = residual(w)
    h, slope = _steepness(x)
    root = np.sqrt(h)
    # d2f/dx2 of sqrt(h) (y - a x^2); f is linear in y.
    second = (1 / root - slope**2 / (4 * h * root)) * (w[:, 1] - BEND * x**2) - 2 * BEND * x * slope / root
    second -= 2 * BEND * root
    return np.asarray((gradient**2).sum(axis=1) + value * second)


def project(w: Point) -> Point:
    """Follow the gradient flow of L to the bottom of the valley, in small steps."""
    for _ in range(FLOW_STEPS):
        value, gradient = residual(w)
        w = w - FLOW_STEP * value[:, None] * gradient
    return w


def _regularised_step(w: Point, lr: float) -> Point:
    """One step down L + lr_sgd sigma^2 / 4 |grad f|^2, its second gradient by central differences."""
    import numpy as np

    value, gradient = residual(w)
    width = 1e-5
    slopes = []
    for axis in range(2):
        shift = np.zeros(2)
        shift[axis] = width
        ahead, behind = (residual(w + sign * shift)[1] for sign in (1, -1))
        slopes.append(((ahead**2).sum(axis=1) - (behind**2).sum(axis=1)) / (2 * width))
    return w - lr * (value[:, None] * gradient + LR * NOISE**2 / 4 * np.stack(slopes, axis=1))


@cache
def simulate(seeds: tuple[int, ...]) -> Mapping[str, npt.NDArray[np.float64]]:
    """Run the three processes.

    Args:
        seeds: Seeds of the noise; all start at the same point.

    Returns:
        By name, the points at every ``EVERY``-th step, shape (times, seeds, 2).
    """
    import numpy as np

    noise = np.stack([np.random.default_rng(seed).standard_normal(STEPS) for seed in seeds], axis=1)
    w = np.tile(np.array(START), (len(seeds), 1))
    path = project(w)
    found: dict[str, list[Point]] = {ITERATE: [w], PROJECTION: [path], REGULARISED: [path]}
    for step in range(STEPS):
        value, gradient = residual(w)
        w = w - LR * (value - NOISE * noise[step])[:, None] * gradient
        path = _regularised_step(path, LR)
        if (step + 1) % EVERY == 0:
            found[ITERATE].append(w)
            found[PROJECTION].append(project(w))
            found[REGULARISED].append(path)
    return {name: np.stack(points) for name, points in found.items()}


def _seeds(results: Results) -> tuple[int, ...]:
    return tuple(SEEDS[results.budget])


def _plane(results: Results) -> pd.DataFrame:
    """The three processes of the first seed in the plane of the two parameters."""
    import pandas as pd

    first = simulate(_seeds(results)[:1])
    return pd.concat(
        [pd.DataFrame({"x": w[:, 0, 0], "y": w[:, 0, 1], "process": name}) for name, w in first.items()],
        ignore_index=True,
    )


def _traces(results: Results) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    frames = []
    for name, points in simulate(_seeds(results)).items():
        for index, seed in enumerate(_seeds(results)):
            values = trace(points[:, index])
            steps = np.arange(len(values)) * EVERY
            frames.append(pd.DataFrame({"step": steps, "value": values, "process": name, "seed": seed}))
    return pd.concat(frames, ignore_index=True)


def _check(name: str, claimed: tuple[float, float], measure: Callable[[Mapping[str, Point]], Point]) -> Check:
    def run(results: Results) -> Evidence:
        values = measure(simulate(_seeds(results)))
        comparison: Comparison = statistics.mean_comparison(
            dict(zip(_seeds(results), values.tolist(), strict=True)), claimed, name=name
        )
        return evidence.from_comparison(comparison)

    return Check(f"Mean over seeds of {name} {statistics.in_words(claimed)}.", run)


def _late(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The trace at the points of the last quarter of the run, shape (times, seeds)."""
    import numpy as np

    late = points[-len(points) // 4 :]
    return np.stack([trace(w) for w in late])


def _along(points: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The ratio of the traces at two processes, shape (times, seeds)."""
    import numpy as np

    return np.stack([trace(w) / trace(v) for w, v in zip(points, others, strict=True)])


def _plan(budget: str, seeds: Sequence[int]) -> list[RunSpec]:
    return []


EXPERIMENT = Experiment(
    id="fig10",
    title="An illustration of fine-tuning: a valley of two parameters",
    paper="Fig. 10",
    question="When noise throws the iterates about in a valley whose floor has the same loss everywhere, can a drift "
    "along the floor be seen after projecting each iterate onto it by gradient flow?",
    seeds=SEEDS,
    plan=_plan,
    charts=(
        Chart(
            id="plane",
            title="Iterates, their projections and the regularised path",
            data=_plane,
            x="x",
            y="y",
            kind="points",
            over=None,
            color="process",
            x_title="first parameter",
            y_title="second parameter",
            caption=f"One seed, every {EVERY}th step; all start at the right end. The floor of the valley is the curve "
            "on which projections and path lie; steep at the right end, flattest where the first parameter is 0.",
        ),
        Chart(
            id="trace",
            title="Trace of the Hessian",
            data=_traces,
            x="step",
            color="process",
            log_y=True,
            x_title="step",
            y_title="trace of the Hessian",
            caption="Mean over ten seeds of the noise with its 95 % interval; the regularised path has no noise.",
        ),
    ),
    claims=(
        Claim(
            id="projections-drift-to-the-flatter-end",
            sentence="The trace of the Hessian at the projections ends at less than half of what it was at the start.",
            check=_check(
                "late trace over first trace at the projections",
                (-math.inf, 0.5),
                lambda found: _late(found[PROJECTION]).mean(axis=0) / trace(found[PROJECTION][0]),
            ),
        ),
        Claim(
            id="projections-follow-the-regularised-path",
            sentence="Along the whole run the trace at the projections is that of the regularised path, within 10 % on "
            "average.",
            check=_check(
                "trace at the projections over trace on the path, mean along the run",
                (0.9, 1.1),
                lambda found: _along(found[PROJECTION], found[REGULARISED]).mean(axis=0),
            ),
        ),
        Claim(
            id="iterates-stay-noisy",
            sentence="At the iterates the trace keeps fluctuating: late in the run its standard deviation along time "
            "is more than twice that at the projections.",
            check=_check(
                "standard deviation of the late trace, iterates over projections",
                (2.0, math.inf),
                lambda found: _late(found[ITERATE]).std(axis=0) / _late(found[PROJECTION]).std(axis=0),
            ),
        ),
    ),
    recipe={
        budget: "Two parameters, loss f^2 / 2 with f = sqrt(1/2 + x^2) (y - 0.35 x^2), label noise of standard "
        f"deviation {NOISE}, LR {LR}, {STEPS} steps. Projections: gradient flow down the loss. Regularised path: "
        "gradient flow of the loss plus LR noise^2 / 4 times the squared gradient of f. The paper's figure is a "
        "drawing; this one is computed, the same at every budget."
        for budget in SEEDS
    },
)
