"""A check for settings that have to be tuned first: the best of a range against one fixed setting.

The best of several noisy results looks better than it is. Here each seed is judged at the setting that is best for the
*other* seeds, so the choice cannot flatter it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from decaylab.experiments import evidence, statistics
from decaylab.experiments.checks import Check, Where, by_setting
from decaylab.experiments.evidence import Evidence, phrase
from decaylab.experiments.quantity import Quantity

if TYPE_CHECKING:
    from decaylab.experiments.results import Results
    from decaylab.experiments.run_spec import Label


def tuned_lower(quantity: Quantity, *, over: str, where: Where, than: Where, by: float = 0.0) -> Check:
    """The best setting of a range has a lower value than another setting, paired by seed.

    Args:
        quantity: What is compared.
        over: A numeric label whose values are the range.
        where: Labels that hold the rest of the range fixed.
        than: Labels of the other setting.
        by: At least how much lower, in the quantity's unit; negative: at most so much higher.
    """
    region = (-math.inf, -by)
    name = f"{quantity.name}: best {over} with {phrase(where)} minus {phrase(than)}"
    rule = f"{name} lies {statistics.in_words(region, quantity.unit)}, paired by seed; {over} is tuned on other seeds."

    def run(results: Results) -> Evidence:
        table = by_setting(results, quantity, over, where)
        other = quantity.by_seed(results, than)
        if any(math.isnan(v) for row in table.values() for v in row.values()):
            return evidence.not_testable(rule, "some of its runs have not ended")
        chosen = {seed: _best_for_others(table, seed) for seed in table}
        at_best = {seed: table[seed][chosen[seed]] for seed in table}
        note = f"{over} " + ", ".join(f"{v:g}" for v in sorted(set(chosen.values())))
        comparison = statistics.paired_difference(
            at_best, other, region, name=name, unit=quantity.unit, note=f"chosen by the other seeds: {note}"
        )
        found = evidence.from_comparison(comparison)
        return replace(found, rule=f"{found.rule} The {over} of each seed is the best one of the other seeds.")

    return Check(rule, run)


def _best_for_others(table: dict[Label, dict[float, float]], seed: Label) -> float:
    others = [row for key, row in table.items() if key != seed] or [table[seed]]
    return min(table[seed], key=lambda setting: math.fsum(row[setting] for row in others))
