"""What one recommendation consists of: a number with its unit, its formula, its source and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from decaylab.quantities import format_count


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """One number for one setting, from one method."""

    quantity: Literal["weight_decay", "learning_rate", "batch_size"]
    value: float
    unit: str
    """Empty for weight decay and learning rate; ``sequences of 1,024 tokens`` for a batch."""
    method: str
    formula: str
    """In symbols."""
    worked: str
    """With this run's numbers."""
    source: str
    fitted_on: str
    """Where the fit was made."""
    low: float | None = None
    """Lower end, where the method gives a range."""
    high: float | None = None
    """Upper end of the range."""
    warnings: tuple[str, ...] = ()
    """Why it may not hold for this run."""
    notes: tuple[str, ...] = ()
    """How to read it."""


def outside(name: str, number: float, low: float, high: float, unit: str = "") -> tuple[str, ...]:
    """Return a warning when a number lies outside the range of a fit, else nothing.

    Args:
        name: What the number is, with a capital.
        number: This run's.
        low: Lower end of the fitted range.
        high: Upper end of the fitted range.
        unit: Of the number, in the plural.
    """
    if low <= number <= high:
        return ()
    where = "below" if number < low else "above"
    unit = f" {unit}" if unit else ""
    ends = f"{format_count(low)} to {format_count(high)}" if low else f"up to {format_count(high)}"
    return (f"{name} {format_count(number)}{unit} is {where} the fitted range ({ends}).",)
