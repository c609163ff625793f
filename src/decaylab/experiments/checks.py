"""The checks of claims, as declarations: lower than, equal within a margin, rising with, best inside, crossing.

Each returns a ``Check``: called with the results it gives ``Evidence``. The statistics are in ``statistics`` and
``shares``, the numbers they compare are ``quantity`` objects, and settings are picked by labels::

    check = lower(final("test/error"), this={"lr": "large", "wd": "with"}, than={"lr": "large", "wd": "none"})
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from decaylab.experiments import evidence, statistics
from decaylab.experiments import proportions as shares
from decaylab.experiments.evidence import Evidence, Verdict, phrase
from decaylab.experiments.quantity import Quantity

if TYPE_CHECKING:
    from decaylab.experiments.results import Results
    from decaylab.experiments.run_spec import Label

Where = Mapping[str, "Label"]


@dataclass(frozen=True)
class Check:
    """A statistical check that waits for results.

    Attributes:
        rule: What it asks for, in words.
        run: Gives the evidence.
    """

    rule: str
    run: Callable[[Results], Evidence]

    def __call__(self, results: Results) -> Evidence:
        """Check the claim."""
        return self.run(results)


def lower(quantity: Quantity, *, this: Where, than: Where, by: float = 0.0, confidence: float = 0.95) -> Check:
    """``this`` setting has a lower value than another, paired by seed.

    Args:
        quantity: What is compared.
        this: Labels of the first setting; together with a seed they must pick one run.
        than: Labels of the other.
        by: At least how much lower, in the quantity's unit.
        confidence: Of the interval.
    """
    return _difference(quantity, this, than, (-math.inf, 0.0 - by), confidence)


def higher(quantity: Quantity, *, this: Where, than: Where, by: float = 0.0, confidence: float = 0.95) -> Check:
    """``this`` setting has a higher value than another, paired by seed; arguments as for ``lower``."""
    return _difference(quantity, this, than, (by, math.inf), confidence)


def equal(quantity: Quantity, *, this: Where, that: Where, margin: float, confidence: float = 0.95) -> Check:
    """Two settings differ by less than a margin that is fixed beforehand, paired by seed: a test of equivalence.

    Not finding a difference is not the same: that stays ``undecided``.
    """
    return _difference(quantity, this, that, (-margin, margin), confidence)


def equivalent(quantity: Quantity, *, this: Where, that: Where, margin: float, level: float = 0.05) -> Check:
    """Two settings differ by less than a margin: two one-sided tests at a level of 5 %, paired by seed.

    The test of equivalence as it is usual (TOST, Schuirmann 1987): each of the two tests has the whole level, so the
    interval has the confidence 1 - 2 level, 90 %. ``equal`` is the same with 2.5 %.

    Args:
        quantity: What is compared.
        this: Labels of the first setting.
        that: Labels of the other.
        margin: Fixed beforehand, in the quantity's unit.
        level: Of each of the two tests.
    """
    check = _difference(quantity, this, that, (-margin, margin), 1 - 2 * level)
    return Check(f"{check.rule} Two one-sided tests at {100 * level:g} %.", check.run)


def not_worse(
    quantity: Quantity,
    *,
    this: Where,
    than: Where,
    margin: float,
    lower_is_better: bool = True,
    level: float = 0.025,
) -> Check:
    """``this`` setting is worse than another by less than a margin, or better: a test of non-inferiority.

    One-sided, as the sentence is: that ``this`` is much better never makes it fail. It fails where ``this`` is worse by
    more than the margin.

    Args:
        quantity: What is compared.
        this: Labels of the first setting.
        than: Labels of the other.
        margin: What difference does not matter, fixed beforehand, in the quantity's unit.
        lower_is_better: Whether low values are good.
        level: Of the one-sided test.
    """
    region = (-math.inf, margin) if lower_is_better else (-margin, math.inf)
    return _difference(quantity, this, than, region, 1 - 2 * level)


def inside(
    quantity: Quantity, *, where: Where, low: float = -math.inf, high: float = math.inf, confidence: float = 0.95
) -> Check:
    """The mean over seeds of one setting lies in a region, such as a gap between -0.05 and 0.05 nats."""
    region = (low, high)

    def run(results: Results) -> Evidence:
        values = quantity.by_seed(results, where)
        comparison = statistics.mean_comparison(
            values,
            region,
            name=quantity.name,
            unit=quantity.unit,
            confidence=confidence,
            note=_note(results, where),
        )
        return evidence.from_comparison(replace(comparison, context=where))

    return Check(f"Mean over seeds of {quantity.name} {statistics.in_words(region, quantity.unit)}.", run)


def trend(
    quantity: Quantity,
    *,
    over: str,
    expect: Literal["rising", "falling"],
    where: Where | None = None,
    scale: Literal["linear", "log", "rank"] = "log",
) -> Check:
    """A quantity rises or falls with an ordered setting: one slope a seed, then a t interval over the seeds.

    Args:
        quantity: What is regressed.
        over: A numeric label, such as ``lr``.
        expect: Sign of the slope.
        where: Labels that hold the rest fixed.
        scale: ``log`` gives the slope per decade, ``rank`` per step from one setting to the next.
    """
    region = (0.0, math.inf) if expect == "rising" else (-math.inf, 0.0)
    per = {"linear": f"unit of {over}", "log": f"decade of {over}", "rank": f"step of {over}"}[scale]

    def run(results: Results) -> Evidence:
        table = by_setting(results, quantity, over, where or {})
        slopes = {seed: statistics.slope(_scaled(list(row), scale), list(row.values())) for seed, row in table.items()}
        comparison = statistics.mean_comparison(
            slopes,
            region,
            name=f"slope of {quantity.name} over {over}",
            unit=f"{quantity.unit} per {per}".strip(),
            note=_note(results, where or {}),
        )
        return evidence.from_comparison(replace(comparison, context=where or {}))

    return Check(f"{quantity.name} is {expect} with {over}: one slope a seed.", run)


def interior_best(
    quantity: Quantity, *, over: str, where: Where | None = None, best: Literal["lowest", "highest"] = "lowest"
) -> Check:
    """An interior setting of an ordered range is better than both ends (a U shape), each seed judged by the others."""

    def run(results: Results) -> Evidence:
        table = by_setting(results, quantity, over, where or {})
        if any(math.isnan(v) for row in table.values() for v in row.values()):
            return evidence.not_testable(rule, "some of its runs have not ended")
        pair = statistics.interior_comparisons(
            table,
            name=f"{quantity.name} over {over}",
            unit=quantity.unit,
            lowest=best == "lowest",
            note=_note(results, where or {}),
        )
        return evidence.all_of([evidence.from_comparison(replace(c, context=where or {})) for c in pair])

    rule = f"An interior {over} has the {best} {quantity.name}: better than both ends; it is chosen by the other seeds."
    return Check(rule, run)


def crosses(
    key: str, *, this: Where, than: Where, between: tuple[float, float] = (0.0, 1.0), start: float = 0.0
) -> Check:
    """One curve is above another at first and below at the end, and they cross between two fractions of training.

    Args:
        key: Metric of the curves.
        this: Labels of the curve that is above at first.
        than: Labels of the other.
        between: Region of the crossing, in fractions of training.
        start: Fraction before which the curves are not compared (warm-up).
    """
    region = (100 * between[0], 100 * between[1])
    shared, own, others = _apart(this, than)
    rule = (
        f"{key} with {phrase(own)} starts above {phrase(others)} and ends below; the crossing maximises the cumulated "
        f"difference and its mean over seeds lies {statistics.in_words(region, '% of training')}."
    )

    def run(results: Results) -> Evidence:
        first, second = results.by_seed(this), results.by_seed(than)
        points: dict[Label, float] = {}
        without: list[Label] = []
        for seed in first:
            points[seed] = math.nan
            if results.ended(first[seed]) and results.ended(second[seed]):
                a, b = results.curve(first[seed], key), results.curve(second[seed], key)
                other = dict(zip(b.steps, b.values, strict=True))
                both = [
                    (f, v - other[s])
                    for f, s, v in zip(a.fractions, a.steps, a.values, strict=True)
                    if s in other and f >= start and math.isfinite(v - other[s])
                ]
                points[seed] = 100 * statistics.crossing([f for f, _ in both], [d for _, d in both])
                never = both and points[seed] in (100 * both[0][0], 100 * both[-1][0])
                if never or results.diverged(first[seed]):  # a diverged loss does not end below anything
                    without.append(seed)
        note = _note(results, this, than)
        if without:
            lost = any(results.diverged(first[seed]) for seed in without)
            how = "do not cross, or the first one diverged," if lost else "do not cross"
            note = "; ".join(filter(None, (note, f"the curves {how} for seeds {', '.join(map(str, without))}")))
        name = f"where {key} with {phrase(own)} falls below {phrase(others)}"
        comparison = statistics.mean_comparison(points, region, name=name, unit="% of training", note=note)
        comparison = replace(comparison, context=shared)
        if without and comparison.verdict is not Verdict.NOT_TESTABLE:
            # Without a crossing there is nothing to average: if no seed has one the claim fails, else it is open.
            verdict = Verdict.FAILS if len(without) == len(points) else Verdict.UNDECIDED
            return Evidence(verdict=verdict, rule=comparison.rule, comparisons=(replace(comparison, verdict=verdict),))
        return evidence.from_comparison(comparison)

    return Check(rule, run)


def diverges_more(*, this: Where, than: Where) -> Check:
    """More seeds diverge under ``this`` setting than under another: Fisher's exact test."""
    shared, own, others = _apart(this, than)
    name = f"share of diverged seeds: {phrase(own)} minus {phrase(others)}"

    def run(results: Results) -> Evidence:
        comparison = shares.share_difference(_diverged(results, this), _diverged(results, than), name=name)
        return evidence.from_comparison(replace(comparison, context=shared))

    return Check(f"More seeds diverge with {phrase(this)} than with {phrase(than)} (Fisher's exact test).", run)


def diverged_share(*, where: Where, low: float = -math.inf, high: float = math.inf) -> Check:
    """The share of seeds that diverge lies in a region of 0 to 1, by its exact binomial interval."""

    def run(results: Results) -> Evidence:
        comparison = shares.share_comparison(_diverged(results, where), (low, high), name="share of diverged seeds")
        return evidence.from_comparison(replace(comparison, context=where))

    return Check(f"Share of seeds that diverge with {phrase(where)} (exact binomial interval).", run)


def all_of(*checks: Check, corrected: bool = False) -> Check:
    """Hold if every check holds, fail if any fails; ``corrected`` for their number, see `evidence.all_of`."""
    return Check(
        " ".join(c.rule for c in checks),
        lambda results: evidence.all_of([c(results) for c in checks], corrected=corrected),
    )


def any_of(*checks: Check) -> Check:
    """Hold if any check holds, fail if all fail; give k checks the confidence 1 - 0.05 / k."""
    return Check(" or ".join(c.rule for c in checks), lambda results: evidence.any_of([c(results) for c in checks]))


def _difference(quantity: Quantity, this: Where, that: Where, region: tuple[float, float], confidence: float) -> Check:
    shared, own, others = _apart(this, that)
    name = f"{quantity.name}: {phrase(own)} minus {phrase(others)}"
    unit = "percentage points" if quantity.unit == "%" else quantity.unit

    def run(results: Results) -> Evidence:
        first, second = quantity.by_seed(results, this), quantity.by_seed(results, that)
        comparison = statistics.paired_difference(
            first, second, region, name=name, unit=unit, confidence=confidence, note=_note(results, this, that)
        )
        return evidence.from_comparison(replace(comparison, context=shared))

    return Check(f"{name} lies {statistics.in_words(region, unit)}, paired by seed.", run)


def by_setting(results: Results, quantity: Quantity, over: str, where: Where) -> dict[Label, dict[float, float]]:
    """Return a quantity by seed and by the value of a numeric label, where other labels are fixed."""
    settings = sorted({float(v) for v in results.values_of(over, where)})
    table: dict[Label, dict[float, float]] = {}
    for setting in settings:
        for seed, value in quantity.by_seed(results, {**where, over: setting}).items():
            table.setdefault(seed, {})[setting] = value
    return table


def _scaled(settings: Sequence[float], scale: str) -> list[float]:
    if scale == "rank":
        return [float(i) for i in range(len(settings))]
    return [math.log10(s) for s in settings] if scale == "log" else list(settings)


def _diverged(results: Results, where: Where) -> dict[Label, bool | None]:
    return {s: results.diverged(r) if results.ended(r) else None for s, r in results.by_seed(where).items()}


def _note(results: Results, *settings: Where) -> str:
    """Say how many of the compared runs diverged, because that bends every number."""
    parts = []
    for where in settings:
        runs = results.runs_with(where)
        lost = sum(results.diverged(run) for run in runs)
        if lost:
            parts.append(f"{lost} of {len(runs)} runs with {phrase(where) or 'these settings'} diverged")
    return "; ".join(parts)


def _apart(this: Where, that: Where) -> tuple[dict[str, Label], dict[str, Label], dict[str, Label]]:
    """Return the labels that two settings share, those of the first alone, and those of the second alone."""
    shared = {name: v for name, v in this.items() if name in that and that[name] == v}
    return (
        shared,
        {n: v for n, v in this.items() if n not in shared},
        {n: v for n, v in that.items() if n not in shared},
    )
