"""The statistics of the claims: intervals over seeds, and the comparison each one makes.

All of them take one number a seed and answer with a ``Comparison``: an estimate, an interval, and the verdict that
follows from a rule fixed before the runs. Seeds are pairs: the same initialisation and the same data order on both
sides, so differences are taken within a seed and the spread between seeds cancels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from decaylab.experiments.evidence import MIN_SEEDS, Comparison, Verdict, judge

Seed = str | float | int
Region = tuple[float, float]
CONFIDENCE = 0.95


class Lost(float):
    """What a diverged run counts as in place of a number that it did not come to."""


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    r"""Return (mean, low, high): Student's t interval of a mean.

    .. math:: \bar v \pm t_{(1+c)/2,\,n-1} \; s / \sqrt n

    with s the standard deviation over the n values. It is exact for normal values, and infinite for fewer than two.

    >>> [round(x, 3) for x in t_interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return mean, -math.inf, math.inf
    half = _t_quantile((1 + confidence) / 2, n - 1) * _deviation(values, mean) / math.sqrt(n)
    return mean, mean - half, mean + half


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    r"""Return (median, low, high) without assuming any distribution: the interval that inverts the sign test.

    Its ends are the k-th smallest and k-th largest value, with the largest k for which
    :math:`1 - 2 P(\mathrm{Binomial}(n, 1/2) < k)` still reaches the confidence. Below six values no such k exists at
    95 %, and the interval is infinite. Infinite values are welcome: only their order counts.
    """
    n = len(values)
    ordered = sorted(values)
    if not n:
        return math.nan, -math.inf, math.inf
    upper, lower = ordered[n // 2], ordered[(n - 1) // 2]
    middle = lower if lower == upper else (lower + upper) / 2
    tail, k = 0.0, 0
    while k < n // 2:
        tail += math.comb(n, k) / 2**n
        if 1 - 2 * tail < confidence:
            break
        k += 1
    return (middle, ordered[k - 1], ordered[n - k]) if k else (middle, -math.inf, math.inf)


def hedges_g(differences: Sequence[float]) -> float | None:
    r"""Return the standardised mean of paired differences, corrected for the small sample.

    .. math:: g = \frac{\bar d}{s_d} \, J, \qquad
              J = \frac{\Gamma(m/2)}{\sqrt{m/2}\;\Gamma((m-1)/2)}, \quad m = n - 1

    (Hedges 1981). None for fewer than three values (J is 0 for two), for infinite ones, or without any spread.
    """
    n = len(differences)
    if n < 3 or not all(map(math.isfinite, differences)):
        return None
    mean = math.fsum(differences) / n
    deviation = _deviation(differences, mean)
    if deviation == 0:
        return None
    m = n - 1
    correction = math.exp(math.lgamma(m / 2) - math.lgamma((m - 1) / 2)) / math.sqrt(m / 2)
    return mean / deviation * correction


def mean_comparison(
    values: Mapping[Seed, float],
    claimed: Region,
    *,
    name: str,
    unit: str = "",
    confidence: float = CONFIDENCE,
    note: str = "",
) -> Comparison:
    """Compare the mean over seeds with a claimed region.

    Args:
        values: One number a seed; NaN where a run is missing or ended without it.
        claimed: Region in which the mean lies according to the claim.
        name: What the number is.
        unit: Of the values.
        confidence: Of the interval.
        note: Passed on.

    Returns:
        The mean with its t interval. With an infinite value among them (a diverged run counts as an infinite loss) the
        median with its sign-test interval instead, which asks for six seeds. Not testable below three seeds, or when a
        seed is missing: a claim is not tested half way, or the moment of looking would bend the error rate.
    """
    seeds, numbers = tuple(values), tuple(float(v) for v in values.values())
    missing = [seed for seed, number in values.items() if math.isnan(number)]
    infinite = any(map(math.isinf, numbers))
    present = [v for v in numbers if not math.isnan(v)]
    if infinite:
        estimate, low, high = median_interval(present, confidence)
        how = "Median over seeds, interval of the sign test because some values are infinite"
    else:
        estimate, low, high = t_interval(present, confidence)
        how = "Mean over seeds with a t interval"
    verdict = judge(low, high, claimed)
    if missing or len(present) < MIN_SEEDS:
        verdict = Verdict.NOT_TESTABLE
        why = (
            f"{len(present)} of {len(seeds)} seeds have a value" if missing else f"{len(present)} of {MIN_SEEDS} seeds"
        )
        note = f"{note}; {why}" if note else why
    return Comparison(
        name=name,
        estimate=estimate,
        low=low,
        high=high,
        claimed=claimed,
        verdict=verdict,
        rule=f"{how}: holds if the {100 * confidence:.4g} % interval lies wholly {in_words(claimed, unit)}, "
        "fails if wholly outside.",
        unit=unit,
        seeds=seeds,
        values=numbers,
        effect_size=None if infinite else hedges_g(present),
        confidence=confidence,
        note=note,
        level=(1 - confidence) / 2,
        p_holds=p_value(present, claimed),
        p_fails=min(1.0, p_value(present, (-math.inf, claimed[0])), p_value(present, (claimed[1], math.inf))),
    )


def p_value(values: Sequence[float], region: Region) -> float:
    r"""Return the one-sided p-value of the statement that the mean lies in a region: the larger one of its two ends'.

    For an end b that is finite, Student's one-sided test of the mean against it, and the sign test of the median where
    a value is infinite. It is below (1 - c) / 2 where the interval of confidence c lies inside the region, and the
    other way round (two one-sided tests, Schuirmann 1987). An end that is infinite is always kept to; an empty region
    never is. 1 for fewer than two values.
    """
    start, end = region
    if len(values) < 2 or start == math.inf or end == -math.inf or any(map(math.isnan, values)):
        return 1.0
    above = 0.0 if start == -math.inf else _one_sided([v - start for v in values])
    below = 0.0 if end == math.inf else _one_sided([end - v for v in values])
    return max(above, below)


def _one_sided(values: Sequence[float]) -> float:
    """Return the p-value of a mean of at most 0, or of such a median where a value is infinite."""
    n = len(values)
    if any(map(math.isinf, values)):
        against = sum(v <= 0 for v in values)
        return math.fsum(math.comb(n, k) for k in range(against + 1)) / 2.0**n
    mean = math.fsum(values) / n
    error = _deviation(values, mean) / math.sqrt(n)
    if error == 0:
        return 0.0 if mean > 0 else 1.0
    half = (1 - _covered(math.atan(abs(mean) / error / math.sqrt(n - 1)), n - 1)) / 2
    return half if mean > 0 else 1 - half


def paired_difference(
    this: Mapping[Seed, float],
    that: Mapping[Seed, float],
    claimed: Region,
    *,
    name: str,
    unit: str = "",
    confidence: float = CONFIDENCE,
    note: str = "",
) -> Comparison:
    """Compare two settings seed by seed: the mean of ``this - that`` with its t interval.

    Two runs of a seed that both diverged differ by 0, and where all of them did, nothing can be tested. A margin makes
    it a test of equivalence: with the claimed region (-m, m) the claim holds if the whole interval is inside the margin
    and fails if it is wholly outside. See ``mean_comparison`` for the arguments.

    Raises:
        ValueError: The two sides have different seeds, so nothing is paired.
    """
    if set(this) != set(that):
        raise ValueError(f"{name}: unpaired seeds {sorted(set(this) ^ set(that), key=str)}")
    differences = {seed: _difference(this[seed], that[seed]) for seed in this}
    found = mean_comparison(differences, claimed, name=name, unit=unit, confidence=confidence, note=note)
    if this and all(isinstance(v, Lost) for v in (*this.values(), *that.values())):
        why = "every run of both settings diverged"
        return replace(found, verdict=Verdict.NOT_TESTABLE, note=f"{found.note}; {why}" if found.note else why)
    return found


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the least-squares slope of y on x; NaN for fewer than two points or when one of them is not finite."""
    n = len(x)
    if n < 2 or not all(map(math.isfinite, (*x, *y))):
        return math.nan
    x_mean, y_mean = math.fsum(x) / n, math.fsum(y) / n
    spread = math.fsum((a - x_mean) ** 2 for a in x)
    return math.fsum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / spread if spread else math.nan


def crossing(x: Sequence[float], difference: Sequence[float]) -> float:
    r"""Return where a difference of two curves turns from positive to negative.

    The point that splits best: it maximises the cumulated difference :math:`D(s) = \int_0^s d(x)\,dx`, which rises
    while the first curve is above and falls while it is below. A few noisy changes of sign around the crossing do not
    move it, as they would move the first or the last change of sign.

    Args:
        x: Where the curves were measured, ascending.
        difference: First curve minus second curve there.

    Returns:
        The crossing; the first x when the first curve is never above in the sum, the last x when it never falls below.
        NaN without two finite points.
    """
    points = [(a, d) for a, d in zip(x, difference, strict=True) if math.isfinite(d)]
    if len(points) < 2:
        return math.nan
    total, best, where = 0.0, 0.0, points[0][0]
    for (a, d), (b, e) in itertools.pairwise(points):
        if d > 0 > e:  # the maximum lies between the two points, where the line through them is zero
            middle = a + (b - a) * d / (d - e)
            if total + d * (middle - a) / 2 > best:
                best, where = total + d * (middle - a) / 2, middle
        total += (d + e) / 2 * (b - a)
        if total > best:
            best, where = total, b
    return where


def interior_comparisons(
    table: Mapping[Seed, Mapping[float, float]],
    *,
    name: str,
    unit: str = "",
    lowest: bool = True,
    note: str = "",
) -> tuple[Comparison, Comparison]:
    """Test that an interior setting is better than both ends of an ordered range (a U shape).

    Which interior setting is the best one is itself estimated. To keep that choice from flattering the result, each
    seed is compared at the setting that is best for *the other seeds*.

    Args:
        table: One row a seed: setting to value.
        name: What the values are.
        unit: Of the values.
        lowest: Whether low values are good.
        note: Passed on.

    Returns:
        Best interior minus the first setting, and minus the last.

    Raises:
        ValueError: Fewer than three settings, or seeds with different ones.
    """
    settings = sorted(next(iter(table.values()), {}))
    if len(settings) < 3 or any(sorted(row) != settings for row in table.values()):
        raise ValueError(f"{name}: an interior optimum needs three settings or more, the same for every seed")
    sign = 1.0 if lowest else -1.0
    to_first: dict[Seed, float] = {}
    to_last: dict[Seed, float] = {}
    for seed, row in table.items():
        others = [other for key, other in table.items() if key != seed] or [row]
        inside = min(settings[1:-1], key=lambda s: math.fsum(sign * other[s] for other in others))
        to_first[seed] = _difference(row[inside], row[settings[0]])
        to_last[seed] = _difference(row[inside], row[settings[-1]])
    claimed = (-math.inf, 0.0) if lowest else (0.0, math.inf)
    first, last = (
        mean_comparison(v, claimed, name=f"{name}: best interior minus {end:g}", unit=unit, note=note)
        for v, end in ((to_first, settings[0]), (to_last, settings[-1]))
    )
    return first, last


def in_words(claimed: Region, unit: str = "") -> str:
    """Say where a claimed region is: ``below 0``, ``above 50 %``, ``between -0.02 and 0.02 nats``."""
    low, high = claimed
    after = f" {unit}" if unit else ""
    if low == -math.inf:
        return f"below {high:g}{after}"
    if high == math.inf:
        return f"above {low:g}{after}"
    return f"between {low:g} and {high:g}{after}"


def _difference(a: float, b: float) -> float:
    return 0.0 if a == b else a - b


def _deviation(values: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _t_quantile(probability: float, freedom: int) -> float:
    r"""Return Student's t for a probability of at least 1/2, from the finite sums that whole degrees of freedom have.

    With :math:`\theta = \arctan(t/\sqrt\nu)` and :math:`c = \cos\theta`, the probability of -t to t is for even and
    for odd :math:`\nu` (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4),

    .. math::
        \sin\theta \left(1 + \tfrac12 c^2 + \tfrac{1 \cdot 3}{2 \cdot 4} c^4 + \dots + (\dots)\, c^{\nu-2}\right), \quad
        \tfrac2\pi \left(\theta + \sin\theta \left(c + \tfrac23 c^3 + \dots + (\dots)\, c^{\nu-2}\right)\right)

    It rises with theta, which bisection then finds.
    """
    inside = 2 * probability - 1
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _covered(middle, freedom) < inside else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _covered(theta: float, freedom: int) -> float:
    """Return the probability of -t to t for ``t = sqrt(freedom) tan(theta)``, see `_t_quantile`."""
    cosine, sine = math.cos(theta), math.sin(theta)
    odd = freedom % 2
    terms, term = [], cosine if odd else 1.0
    for power in range(odd, freedom - 1, 2):
        terms.append(term)
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2 / math.pi * (theta + sine * math.fsum(terms)) if odd else sine * math.fsum(terms)
