r"""What the trials allow to say: does decay matter, where is its optimum, which values are alike.

Whether decay lowers the loss is tested on the longest rung, between no decay and the candidate at the place that the
*shorter* rungs predicted, so that no choice flatters the result. The noise of a trial is the residual of settings x
seeds

.. math:: s^2 = \frac{1}{(k-1)(n-1)} \sum_{i,s} (y_{is} - \bar y_{i\cdot} - \bar y_{\cdot s} + \bar y)^2

pooled over rungs. Decay *does not matter* when the interval of the gain lies above -epsilon at the one-sided 5 % level
(one half of Schuirmann's two one-sided tests, 1987), and *helps* when its 95 % interval lies below 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from decaylab.tuning.answer import Interval
from decaylab.tuning.trials import Result

EPSILON = 0.005  # of the metric: below half a per cent nothing is worth another setting


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Change of the metric by the best decay against none, on one rung; negative is better.

    Attributes:
        interval: Mean with its 95 % interval.
        least: Lower end of the one-sided 95 % interval: the largest gain that the trials leave open.
        epsilon: What counts as no difference.
    """

    interval: Interval
    least: float
    epsilon: float

    @property
    def helps(self) -> bool:
        """Whether decay lowers the loss."""
        return self.interval.high is not None and self.interval.high < 0 and not self.does_not_matter

    @property
    def does_not_matter(self) -> bool:
        """Whether a gain above epsilon is excluded."""
        return self.least > -self.epsilon


def noise(rungs: Sequence[Sequence[Result]], *, paired: bool) -> tuple[float, int]:
    """Return the standard deviation of one trial within its seed and setting, and its degrees of freedom."""
    squares, freedom = 0.0, 0
    for rung in rungs:
        table = _table(rung)
        if table.shape[0] < 2 or table.shape[1] < 2:
            continue
        # Settings far above the best spread more: they say little of the noise where it matters.
        means = table.mean(axis=1)
        table = table[np.argsort(means)[: max(2, math.ceil(len(means) / 2))]]
        residual = table - table.mean(axis=1, keepdims=True)
        if paired:
            residual = residual - table.mean(axis=0, keepdims=True) + table.mean()
        squares += float(np.sum(residual**2))
        freedom += (table.shape[0] - (1 if paired else 0)) * (table.shape[1] - 1)
    return (math.sqrt(squares / freedom), freedom) if freedom else (math.nan, 0)


def gain(longest: Sequence[Result], chosen: float, spread: float, freedom: int, *, epsilon: float | None) -> Gain:
    """Compare a weight decay with none on a rung.

    Args:
        longest: Results of the rung.
        chosen: The weight decay that was predicted before the rung was trained.
        spread: Standard deviation of one trial.
        freedom: Its degrees of freedom.
        epsilon: What counts as no difference; by default half a per cent of the metric.
    """
    none = {r.point.seed: r.value for r in longest if r.point.weight_decay == 0}
    best = {r.point.seed: r.value for r in longest if r.point.weight_decay == chosen}
    pairs = [best[s] - none[s] for s in best if s in none and math.isfinite(best[s]) and math.isfinite(none[s])]
    level = float(np.mean([abs(v) for v in none.values() if math.isfinite(v)] or [math.nan]))
    small = EPSILON * level if epsilon is None else epsilon
    if not pairs or not freedom or math.isnan(spread):
        return Gain(interval=Interval(value=None, low=None, high=None), least=-math.inf, epsilon=small)
    mean, error = float(np.mean(pairs)), spread * math.sqrt(2 / len(pairs))
    half = float(stats.t.ppf(0.975, freedom)) * error
    one_sided = float(stats.t.ppf(0.95, freedom)) * error
    return Gain(interval=Interval(value=mean, low=mean - half, high=mean + half), least=mean - one_sided, epsilon=small)


def _table(rung: Sequence[Result]) -> np.ndarray:
    """Return the finite results of a rung as settings by seeds; settings that miss one are left out."""
    seeds = sorted({r.point.seed for r in rung})
    rows: dict[tuple[float, float], dict[int, float]] = {}
    for r in rung:
        rows.setdefault((r.point.lr, r.point.weight_decay), {})[r.point.seed] = r.value
    whole = [
        [row[s] for s in seeds] for row in rows.values() if all(math.isfinite(row.get(s, math.inf)) for s in seeds)
    ]
    return np.array(whole, dtype=np.float64).reshape(len(whole), len(seeds))
