"""Checks on effects: how much of one another arm has, how one moves with a setting, and best against best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from decaylab.experiments import evidence, statistics
from decaylab.experiments.checks import Check, Where, by_setting
from decaylab.experiments.evidence import Evidence, phrase
from decaylab.experiments.quantity import Quantity

if TYPE_CHECKING:
    from decaylab.experiments.results import Results
    from decaylab.experiments.run_spec import Label

_MISSING = "some of its runs have not ended, or have diverged"


def has_share(
    quantity: Quantity, *, this: Where, of: Where, baseline: Where, share: float, effect: Literal["lower", "higher"]
) -> Check:
    r"""An arm has at least a share s of the effect that another arm has against a baseline, paired by seed.

    Tested on the contrast :math:`(b - t) - s\,(b - o)` of the baseline b, this arm t and the other one o (for an effect
    that lowers; the signs turn for one that raises), which is above 0 where the share is larger. A ratio of two noisy
    differences would have no mean.

    Args:
        quantity: What is compared.
        this: Labels of the arm.
        of: Labels of the arm whose effect it is.
        baseline: Labels of what both are compared with.
        share: s.
        effect: Whether the effect lowers or raises the quantity.
    """
    sign = 1.0 if effect == "lower" else -1.0
    own = {name: value for name, value in this.items() if of.get(name) != value}
    others = {name: value for name, value in of.items() if this.get(name) != value}
    shared = {name: value for name, value in this.items() if name not in own}
    name = f"{quantity.name}: what {phrase(own)} has beyond {100 * share:g} % of the effect of {phrase(others)}"

    def run(results: Results) -> Evidence:
        t, o, b = (quantity.by_seed(results, where) for where in (this, of, baseline))
        values = {seed: sign * ((b[seed] - t[seed]) - share * (b[seed] - o[seed])) for seed in t}
        comparison = statistics.mean_comparison(values, (0.0, math.inf), name=name, unit=quantity.unit)
        return evidence.from_comparison(replace(comparison, context=shared))

    return Check(f"{name} lies above 0, paired by seed.", run)


def effect_trend(
    quantity: Quantity,
    *,
    over: str,
    this: Where,
    than: Where,
    expect: Literal["rising", "falling"],
) -> Check:
    """The difference of two settings rises or falls with an ordered label: a slope per step of it a seed.

    Args:
        quantity: What is compared.
        over: A numeric label.
        this: Labels of the first setting, without that label.
        than: Labels of the other.
        expect: Sign of the slope of first minus other.
    """
    region = (0.0, math.inf) if expect == "rising" else (-math.inf, 0.0)
    name = f"slope over {over} of {quantity.name}, {phrase(this)} minus {phrase(than)}"

    def run(results: Results) -> Evidence:
        first, second = (by_setting(results, quantity, over, where) for where in (this, than))
        slopes = {}
        for seed, row in first.items():
            settings = sorted(set(row) & set(second[seed]))
            slopes[seed] = statistics.slope(
                [float(i) for i in range(len(settings))], [row[s] - second[seed][s] for s in settings]
            )
        comparison = statistics.mean_comparison(slopes, region, name=name, unit=f"{quantity.unit} a step of {over}")
        return evidence.from_comparison(comparison)

    return Check(f"{name} is {expect}: one slope a seed.", run)


def best_is_lower(
    quantity: Quantity, *, over: str, this: Where, than: Where, by: float = 0.0, choosers: int = 2
) -> Check:
    """The best setting of one range is lower than the best of another, both tuned alike: on seeds that are not judged.

    The first seeds choose the setting of either range, the others are compared at it. (To let the others of each seed
    choose for it, as `decaylab.experiments.tuned` does, keeps the mean right and not the spread: with settings that are
    all alike such a claim holds two to three times as often by chance as it says.)

    Args:
        quantity: What is compared.
        over: A label whose values are the settings of both ranges; it may be a text such as a cell of a grid.
        this: Labels that hold the rest of the first range.
        than: Labels that hold the rest of the other.
        by: At least how much lower.
        choosers: How many seeds choose.
    """
    region = (-math.inf, -by)
    name = f"{quantity.name}: best {over} with {phrase(this)} minus best {over} with {phrase(than)}"
    rule = (
        f"{name} lies {statistics.in_words(region, quantity.unit)}; the first {choosers} seeds choose, the others are "
        "judged."
    )

    def run(results: Results) -> Evidence:
        sides: list[dict[Label, float]] = []
        chosen: list[Label] = []
        for where in (this, than):
            table = _table(results, quantity, over, where)
            if any(math.isnan(v) for row in table.values() for v in row.values()):
                return evidence.not_testable(rule, _MISSING)
            best = _best(list(table.values())[:choosers])
            sides.append({seed: row[best] for seed, row in list(table.items())[choosers:]})
            chosen.append(best)
        first, second = sides
        comparison = statistics.paired_difference(
            first, second, region, name=name, unit=quantity.unit, note=f"chosen: {chosen[0]} against {chosen[1]}"
        )
        return evidence.from_comparison(comparison)

    return Check(rule, run)


def optimum_slope(
    quantity: Quantity, *, best: str, over: str, where: Where, low: float = -math.inf, high: float = math.inf
) -> Check:
    r"""The exponent with which the best value of one label moves with another lies in a region.

    For each seed and value of ``over``, the best ``best`` is the vertex of the parabola in :math:`\log` of ``best``
    through the lowest value and its two neighbours (the lowest itself at an end of the range); the exponent is the
    slope of its logarithm over that of ``over``. Values of 0 are left out.

    Args:
        quantity: What is lowest at the best.
        best: A numeric label, such as ``wd``.
        over: Another one, such as ``lr``.
        where: Labels that hold the rest.
        low: Lower end of the region.
        high: Upper end.
    """
    name = f"exponent of the best {best} in {over}"
    rule = f"{name} lies {statistics.in_words((low, high))}: one exponent a seed."

    def run(results: Results) -> Evidence:
        found: dict[Label, dict[float, float]] = {}
        for setting in sorted(float(v) for v in results.values_of(over, where)):
            for seed, row in by_setting(results, quantity, best, {**where, over: setting}).items():
                found.setdefault(seed, {})[setting] = optimum({s: v for s, v in row.items() if s > 0})
        if any(math.isnan(v) for row in found.values() for v in row.values()):
            return evidence.not_testable(rule, _MISSING)
        slopes = {
            seed: statistics.slope([math.log(s) for s in row], [math.log(v) for v in row.values()])
            for seed, row in found.items()
        }
        return evidence.from_comparison(statistics.mean_comparison(slopes, (low, high), name=name))

    return Check(rule, run)


def optimum(row: Mapping[float, float]) -> float:
    """Return the setting at which a row of settings and values is lowest, see `optimum_slope`; NaN with a NaN in it.

    >>> round(optimum({0.01: 4.0, 0.1: 0.0, 1.0: 4.0}), 6), optimum({0.01: 0.0, 0.1: 1.0, 1.0: 4.0})
    (0.1, 0.01)
    """
    settings = sorted(row)
    if not settings or any(map(math.isnan, row.values())):
        return math.nan
    place = min(range(len(settings)), key=lambda i: row[settings[i]])
    around = settings[place - 1 : place + 2] if 0 < place < len(settings) - 1 else []
    values = [row[s] for s in around]
    if not around or not all(map(math.isfinite, values)):
        return settings[place]
    (x0, x1, x2), (y0, y1, y2) = [math.log(s) for s in around], values
    left, right = (x1 - x0) * (y1 - y2), (x1 - x2) * (y1 - y0)
    if left == right:
        return settings[place]
    return math.exp(x1 - 0.5 * ((x1 - x0) * left - (x1 - x2) * right) / (left - right))


def _table(results: Results, quantity: Quantity, over: str, where: Where) -> dict[Label, dict[Label, float]]:
    table: dict[Label, dict[Label, float]] = {}
    for setting in results.values_of(over, where):
        for seed, value in quantity.by_seed(results, {**where, over: setting}).items():
            table.setdefault(seed, {})[setting] = value
    return table


def _best(rows: Sequence[Mapping[Label, float]]) -> Label:
    return min(rows[0], key=lambda setting: math.fsum(row[setting] for row in rows))
