"""Multiplicity of a page of claims: false holds to expect by chance, and holds that survive a correction for all."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from decaylab.experiments.evidence import Evidence, Verdict

RATE = 0.05


@dataclass(frozen=True, kw_only=True)
class Multiplicity:
    """What many claims on one page do to the chance that some hold by chance.

    Attributes:
        tested: Claims that were tested.
        holding: Claims that hold.
        expected_false: The most false holds to expect: the sum of the levels of all tested claims, which is the number
            that would hold by chance if every one of them were false by as little as possible.
        surviving: Keys of the claims that hold at a false-discovery rate of ``rate``.
        lost: Keys of those that hold, but not at that rate.
        rate: The rate.
    """

    tested: int
    holding: int
    expected_false: float
    surviving: tuple[Hashable, ...]
    lost: tuple[Hashable, ...]
    rate: float

    @property
    def sentence(self) -> str:
        """The same in a sentence or two."""
        if not self.tested:
            return ""
        expected = f"{self.expected_false:.1f}" if self.expected_false < 10 else f"{self.expected_false:.0f}"
        told = (
            f"{self.tested} claims were tested: were all of them false by as little as possible, {expected} would hold "
            f"by chance. "
        )
        if not self.holding:
            return told + "None holds."
        return told + (
            f"{len(self.surviving)} of the {self.holding} that hold still do when the false-discovery rate over the "
            f"page is kept to {100 * self.rate:g} % (Benjamini and Hochberg)."
        )


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    r"""Return p-values adjusted for their number: rejecting those of at most q keeps the false-discovery rate at q.

    With the sorted values :math:`p_{(1)} \le \dots \le p_{(m)}`, the adjusted i-th one is
    :math:`\min_{j \ge i} \min(1, m\,p_{(j)} / j)` (Benjamini and Hochberg 1995). The rate is the expected share of
    false ones among the rejected; it is kept for independent tests and for positively dependent ones, such as claims
    that share runs.

    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]
    """
    m = len(p_values)
    order = sorted(range(m), key=lambda i: p_values[i], reverse=True)
    adjusted, lowest = [1.0] * m, 1.0
    for place, i in enumerate(order):
        lowest = min(lowest, p_values[i] * m / (m - place))
        adjusted[i] = lowest
    return adjusted


def multiplicity(page: Mapping[Hashable, Evidence], rate: float = RATE) -> Multiplicity:
    """Count what the claims of a page do to each other's chances.

    Args:
        page: The evidence of each claim.
        rate: False-discovery rate.

    Returns:
        The counts. A claim survives that holds and whose adjusted p-value is at most the rate.
    """
    tested = {key: found for key, found in page.items() if found.verdict is not Verdict.NOT_TESTABLE}
    adjusted = dict(zip(tested, benjamini_hochberg([found.p_holds for found in tested.values()]), strict=True))
    holding = [key for key, found in tested.items() if found.verdict is Verdict.HOLDS]
    return Multiplicity(
        tested=len(tested),
        holding=len(holding),
        expected_false=sum(found.level for found in tested.values()),
        surviving=tuple(key for key in holding if adjusted[key] <= rate),
        lost=tuple(key for key in holding if adjusted[key] > rate),
        rate=rate,
    )
