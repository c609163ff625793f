"""How often something happens over seeds, such as a divergence: exact statements about shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from decaylab.experiments.evidence import MIN_SEEDS, Comparison, Verdict, judge
from decaylab.experiments.statistics import CONFIDENCE, Region, Seed, in_words


def share_comparison(
    happened: Mapping[Seed, bool | None], claimed: Region, *, name: str, confidence: float = CONFIDENCE
) -> Comparison:
    r"""Compare the share of seeds to which something happened (such as a divergence) with a claimed region.

    The interval is the exact one of Clopper and Pearson (1934): its ends are quantiles of Beta(k, n-k+1) and
    Beta(k+1, n-k). It is wide for few seeds: 3 of 3 gives 29 to 100 %.

    Args:
        happened: Whether it did, a seed; None where the run is missing.
        claimed: Region of the share, from 0 to 1.
        name: What happened.
        confidence: Of the interval.
    """
    known = [v for v in happened.values() if v is not None]
    k, n = sum(known), len(known)
    low, high = _clopper_pearson(k, n, confidence)
    note = f"{k} of {n}"
    verdict = judge(low, high, claimed)
    if n < MIN_SEEDS or n < len(happened):
        verdict, note = Verdict.NOT_TESTABLE, f"{n} of {max(len(happened), MIN_SEEDS)} seeds have ended"
    return Comparison(
        name=name,
        estimate=100 * k / n if n else math.nan,
        low=100 * low,
        high=100 * high,
        claimed=(100 * claimed[0], 100 * claimed[1]),
        verdict=verdict,
        rule="Share of seeds with its exact binomial (Clopper-Pearson) interval: holds if the interval lies wholly "
        f"{in_words((100 * claimed[0], 100 * claimed[1]), '%')}, fails if wholly outside.",
        unit="%",
        seeds=tuple(happened),
        values=tuple(math.nan if v is None else 100.0 * v for v in happened.values()),
        confidence=confidence,
        note=note,
        level=(1 - confidence) / 2,
        p_holds=_share_p(k, n, claimed),
        p_fails=min(_share_p(k, n, (-math.inf, claimed[0])), _share_p(k, n, (claimed[1], math.inf))),
    )


def share_difference(
    this: Mapping[Seed, bool | None], that: Mapping[Seed, bool | None], *, name: str, level: float = 0.05
) -> Comparison:
    """Test that something (such as a divergence) happens more often in ``this`` setting than in ``that`` one.

    Args:
        this: Whether it happened, a seed; None where the run is missing.
        that: The same for the other setting.
        name: What is compared.
        level: Of the one-sided test, in either direction.

    Returns:
        The difference of the shares. Fisher's exact test decides, because few seeds are far from any normal
        distribution: three of three against none of three is p = 1/20, the smallest design that can hold. The interval
        shown is Newcombe's (1998, method 10), for orientation only.
    """
    sides = [[v for v in side.values() if v is not None] for side in (this, that)]
    (k, n), (j, m) = [(sum(side), len(side)) for side in sides]
    estimate, low, high = _newcombe(k, n, j, m)
    more, less = _fisher(k, n, j, m), _fisher(j, m, k, n)
    slack = 1e-12  # three of three against none is exactly 1/20
    verdict = Verdict.UNDECIDED
    if more <= level + slack:
        verdict = Verdict.HOLDS
    elif less <= level + slack:
        verdict = Verdict.FAILS
    note = f"{k} of {n} against {j} of {m}, Fisher's exact test one-sided p = {more:.3g}"
    if min(n, m) < MIN_SEEDS or n < len(this) or m < len(that):
        verdict, note = Verdict.NOT_TESTABLE, f"{n} of {len(this)} and {m} of {len(that)} seeds have ended"
    return Comparison(
        name=name,
        estimate=100 * estimate,
        low=100 * low,
        high=100 * high,
        claimed=(0.0, math.inf),
        verdict=verdict,
        rule=f"Shares of seeds compared by Fisher's exact test: holds if more often with one-sided p <= {level:g}, "
        f"fails if less often with p <= {level:g}; the interval is Newcombe's, for orientation.",
        unit="percentage points",
        seeds=tuple(this),
        note=note,
        level=level,
        p_holds=more,
        p_fails=less,
    )


def _share_p(k: int, n: int, region: Region) -> float:
    """Return the p-value of a share inside a region: the binomial tails beyond its ends."""
    start, end = region
    if start >= 1 or end <= 0:
        return 1.0
    above = 0.0 if start < 0 else _at_least(k, n, start)
    below = 0.0 if end > 1 else 1 - _at_least(k + 1, n, end)
    return max(above, below)


def _clopper_pearson(k: int, n: int, confidence: float) -> tuple[float, float]:
    """Return the shares under which k or more, and k or fewer, of n happen with half of the error probability each."""
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else _share_where(lambda p: _at_least(k, n, p) >= tail)
    high = 1.0 if k == n else _share_where(lambda p: 1 - _at_least(k + 1, n, p) <= tail)
    return low, high


def _at_least(k: int, n: int, p: float) -> float:
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def _share_where(reached: Callable[[float], bool]) -> float:
    """Return the smallest share at which something holds that holds for all larger ones, by bisection."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def _wilson(k: int, n: int, z: float) -> tuple[float, float]:
    if not n:
        return 0.0, 1.0
    p = k / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def _newcombe(k: int, n: int, j: int, m: int) -> tuple[float, float, float]:
    """Return (difference, low, high) of two shares, built from their Wilson score intervals at 95 %."""
    if not n or not m:
        return math.nan, -1.0, 1.0
    z = 1.959963984540054
    p, q = k / n, j / m
    (l1, u1), (l2, u2) = _wilson(k, n, z), _wilson(j, m, z)
    return p - q, p - q - math.hypot(p - l1, u2 - q), p - q + math.hypot(u1 - p, q - l2)


def _fisher(k: int, n: int, j: int, m: int) -> float:
    """Return P(at least k of the n) when k + j of n + m happen at random: the hypergeometric upper tail."""
    total, upper = k + j, min(n, k + j)
    ways = sum(math.comb(n, i) * math.comb(m, total - i) for i in range(k, upper + 1) if total - i <= m)
    return ways / math.comb(n + m, total) if n + m else 1.0
