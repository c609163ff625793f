"""What a claim's check answers: comparisons with intervals, and the verdict that follows from them by rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

MIN_SEEDS = 3
"""Fewer paired seeds than this and a claim is not tested at all."""


class Verdict(StrEnum):
    """What the runs say about a claim. Always computed, never set by hand."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"
    NOT_TESTABLE = "not testable at this budget"


def judge(low: float, high: float, claimed: tuple[float, float]) -> Verdict:
    """Compare an interval with the claimed region.

    Args:
        low: Lower end of the interval.
        high: Upper end.
        claimed: The open region in which the claim says the quantity lies; an end may be infinite.

    Returns:
        ``holds`` if the interval lies wholly inside the region, ``fails`` if wholly outside, ``undecided`` if it covers
        or touches the boundary.
    """
    start, end = claimed
    if (low > start or start == -math.inf) and (high < end or end == math.inf):
        return Verdict.HOLDS
    if high < start or low > end:
        return Verdict.FAILS
    return Verdict.UNDECIDED


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One estimated quantity beside the region that the claim says it lies in.

    Attributes:
        name: What was estimated, in words, without the labels that both sides share.
        estimate: Point estimate over the seeds.
        low: Lower end of the interval.
        high: Upper end of the interval.
        claimed: The region in which the claim says the quantity lies.
        verdict: What follows from the rule of the statistic that built this comparison.
        rule: That rule, in words.
        unit: Unit of estimate, low, high and values.
        seeds: The seeds it rests on.
        values: The quantity of each seed, in the order of ``seeds``.
        effect_size: Hedges' g of the paired differences (mean over standard deviation, corrected for the few seeds).
        confidence: Of the interval.
        note: What a reader must know beside the numbers: diverged seeds, missing runs.
        context: The labels that both sides share.
        level: How often at most it holds by chance where the claim is false.
        p_holds: One-sided p-value of the test by which it holds; None where there is none.
        p_fails: One-sided p-value of the test by which it fails.
    """

    name: str
    estimate: float
    low: float
    high: float
    claimed: tuple[float, float]
    verdict: Verdict
    rule: str
    unit: str = ""
    seeds: tuple[str | float | int, ...] = ()
    values: tuple[float, ...] = ()
    effect_size: float | None = None
    confidence: float = 0.95
    note: str = ""
    context: Mapping[str, str | float | int] = field(default_factory=dict)
    level: float = 0.025
    p_holds: float | None = None
    p_fails: float | None = None

    @property
    def full_name(self) -> str:
        """The name with all labels: ``final test error: WD 0.1 minus WD 0 (LR large)``."""
        return self.name_beside(())

    def name_beside(self, others: Sequence[Comparison]) -> str:
        """The name with the labels that tell this comparison from the others of its claim."""
        told = {k: v for k, v in self.context.items() if not others or any(c.context.get(k) != v for c in others)}
        return f"{self.name} ({phrase(told)})" if told else self.name


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The answer of a claim's check.

    Attributes:
        verdict: What follows.
        rule: How it follows, in words, fixed before the runs.
        comparisons: The numbers it rests on.
        reason: Why it could not be tested, where it could not.
        level: How often at most the claim holds by chance where it is false.
        p_holds: p-value of the claim's being false, for a correction over many claims; 1 where no test gives one.
    """

    verdict: Verdict
    rule: str
    comparisons: tuple[Comparison, ...] = ()
    reason: str = ""
    level: float = 0.025
    p_holds: float = 1.0


def phrase(labels: Mapping[str, str | float | int]) -> str:
    """Say labels in words: ``LR large, WD 0.1``."""
    short = {"lr": "LR", "wd": "WD"}
    pairs = ((short.get(name, name.replace("_", " ")), value) for name, value in labels.items())
    return ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in pairs)


def from_comparison(comparison: Comparison) -> Evidence:
    """Let one comparison decide."""
    reason = comparison.note if comparison.verdict is Verdict.NOT_TESTABLE else ""
    return Evidence(
        verdict=comparison.verdict,
        rule=comparison.rule,
        comparisons=(comparison,),
        reason=reason,
        level=comparison.level,
        p_holds=1.0 if comparison.p_holds is None else comparison.p_holds,
    )


def not_testable(rule: str, reason: str) -> Evidence:
    """Say that a claim cannot be tested, and why."""
    return Evidence(verdict=Verdict.NOT_TESTABLE, rule=rule, reason=reason)


def all_of(parts: Sequence[Evidence], *, corrected: bool = False) -> Evidence:
    """Combine parts that must all hold: holds if every one holds, fails if any fails, else undecided.

    Asking for all of several 95 % statements is an intersection-union test, so no correction for their number is due
    for *holds*: its p-value is the largest of the parts'. *Fails* is a union of k chances: ``corrected`` lets a part
    fail only at its level over k (an interval of confidence 1 - 0.05 / k where the others have 0.95), so that a claim
    that is true fails as rarely as one with a single part. A part that could not be tested leaves the whole untested,
    unless another part has already failed.

    Args:
        parts: The parts.
        corrected: See above.
    """
    if corrected:
        parts = [_fails_rarely(part, len(parts)) for part in parts]
    verdicts = [part.verdict for part in parts]
    if Verdict.FAILS in verdicts:
        verdict = Verdict.FAILS
    elif Verdict.NOT_TESTABLE in verdicts:
        verdict = Verdict.NOT_TESTABLE
    elif all(v is Verdict.HOLDS for v in verdicts):
        verdict = Verdict.HOLDS
    else:
        verdict = Verdict.UNDECIDED
    lead = "All of these must hold"
    if corrected and len(parts) > 1:
        lead += f"; one of them fails only by an interval of confidence 1 - 0.05 / {len(parts)}"
    found = _combined(verdict, parts, lead, " ")
    return replace(found, level=max(p.level for p in parts), p_holds=max(p.p_holds for p in parts))


def any_of(parts: Sequence[Evidence]) -> Evidence:
    """Combine parts of which one is enough: holds if any holds, fails if every one fails, else undecided.

    k chances to hold need intervals of confidence 1 - 0.05 / k (Bonferroni); give the parts that confidence.
    """
    verdicts = [part.verdict for part in parts]
    if Verdict.HOLDS in verdicts:
        verdict = Verdict.HOLDS
    elif Verdict.NOT_TESTABLE in verdicts:
        verdict = Verdict.NOT_TESTABLE
    elif all(v is Verdict.FAILS for v in verdicts):
        verdict = Verdict.FAILS
    else:
        verdict = Verdict.UNDECIDED
    found = _combined(verdict, parts, "One of these is enough", " ")
    smallest = min(1.0, len(parts) * min(part.p_holds for part in parts))
    return replace(found, level=min(1.0, sum(part.level for part in parts)), p_holds=smallest)


def _fails_rarely(part: Evidence, parts: int) -> Evidence:
    """Return a part that is undecided where it fails, but not at its level over the number of parts."""
    if part.verdict is not Verdict.FAILS:
        return part
    slack = 1e-12
    lasting = any(
        c.verdict is Verdict.FAILS and (c.p_fails is None or c.p_fails < c.level / parts + slack)
        for c in part.comparisons
    )
    return part if lasting or not part.comparisons else replace(part, verdict=Verdict.UNDECIDED)


def _combined(verdict: Verdict, parts: Sequence[Evidence], lead: str, space: str) -> Evidence:
    if not parts:
        raise ValueError("a combination needs at least one part")
    rules = list(dict.fromkeys(part.rule for part in parts))
    reasons = list(dict.fromkeys(part.reason for part in parts if part.reason))
    return Evidence(
        verdict=verdict,
        rule=rules[0] if len(parts) == 1 else f"{lead}.{space}{space.join(rules)}",
        comparisons=tuple(c for part in parts for c in part.comparisons),
        reason="; ".join(reasons) if verdict is Verdict.NOT_TESTABLE else "",
    )
