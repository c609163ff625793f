"""The contract with a training script, checked on short runs before the search: does it do as its placeholders say?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from decaylab.errors import DecaylabError
from decaylab.tuning import coordinates
from decaylab.tuning.coordinates import Point
from decaylab.tuning.trials import Result, Trials

HUGE = 100.0  # timescales: weights fall by e^-100, no training survives that unchanged
_MOST_A_STEP = 0.5
_SAME_LR = 0.02  # relative difference of the final over the peak learning rate between two lengths


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What the check found.

    Attributes:
        reaches: Whether a huge weight decay changes the metric.
        paired: Whether the seed decides the run.
        repeats: Difference of two runs of the same settings.
        assumed: What could not be checked.
        warnings: What is so and should be known.
        results: The runs, which the search uses again.
    """

    reaches: bool
    paired: bool
    repeats: float
    assumed: tuple[str, ...]
    warnings: tuple[str, ...]
    results: tuple[Result, ...]


def points(lr: float, steps: int, mean: float, seeds: Sequence[int]) -> list[Point]:
    """Return the runs of the check: no decay twice, another seed, half the length, a huge decay."""
    plain = Point(weight_decay=0.0, lr=lr, steps=steps, seed=seeds[0])
    huge = min(coordinates.weight_decay(HUGE, lr, steps, mean), _MOST_A_STEP / lr)
    return [
        plain,
        replace(plain, repeat=1),
        replace(plain, weight_decay=float(f"{huge:.4g}")),
        replace(plain, steps=max(1, steps // 2)),
        *([plain.with_seed(seeds[1])] if len(seeds) > 1 else []),
    ]


def check(trials: Trials, lr: float, steps: int, mean: float, seeds: Sequence[int], *, has_seed: bool) -> Contract:
    """Run the check.

    Args:
        trials: Trains what is missing.
        lr: Peak learning rate.
        steps: Length of the first rung.
        mean: Of the schedule over its peak.
        seeds: Of the search.
        has_seed: Whether the script takes a seed at all.

    Raises:
        DecaylabError: It ignores the steps or the seed, or diverges without decay.
    """
    results = trials.run(points(lr, steps, mean, seeds))
    plain, again, huge, half = results[:4]
    if math.isinf(plain.value):
        raise DecaylabError(
            f"the script diverges at lr {lr:g} over {steps:,} steps without any decay: lower --lr before tuning decay"
        )
    if half.value == plain.value:
        raise DecaylabError(
            f"{steps:,} and {half.point.steps:,} steps give the same metric, {plain.value:g}: the script ignores "
            "{steps}; it has to train so long, with a schedule that ends there"
        )
    repeats = abs(again.value - plain.value)
    warnings, assumed = [], []
    paired = has_seed and (len(results) < 5 or results[4].value != plain.value or repeats > 0)
    if has_seed and not paired:
        raise DecaylabError(
            f"two seeds give the same metric, {plain.value:g}: the script ignores {{seed}}; it has to decide "
            "initialisation and data order"
        )
    if not has_seed and not repeats:
        raise DecaylabError(
            "the command has no {seed}, and the same settings twice give the same metric: nothing shows how much of a "
            "difference is chance; give the script a seed for initialisation and data order, and write {seed} there"
        )
    if not has_seed:
        warnings.append("the script takes no seed: runs are not paired, and intervals are wider")
    if repeats:
        warnings.append(f"the same settings twice differ by {repeats:.2g}: the script is not reproducible")
    if plain.lr is not None and half.lr is not None:
        if abs(plain.lr - half.lr) > _SAME_LR * lr:
            raise DecaylabError(
                f"the learning rate of the last step is {plain.lr:g} over {steps:,} steps and {half.lr:g} over "
                f"{half.point.steps:,}: {{steps}} cuts the schedule off; it has to decide the schedule's length too"
            )
    else:
        assumed.append("{steps} is the length of the whole schedule (no lr beside the metric to check it by)")
    reaches = math.isinf(huge.value) or abs(huge.value - plain.value) > 3 * repeats
    kept = [plain, *results[4:]]
    return Contract(
        reaches=reaches,
        paired=paired,
        repeats=repeats,
        assumed=tuple(assumed),
        warnings=tuple(warnings),
        results=tuple(kept),
    )
