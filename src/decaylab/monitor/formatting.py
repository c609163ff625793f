"""Numbers of a summary as text: steps, percentages, factors, angles in both units."""

from __future__ import annotations

import math


def known(*values: float) -> bool:
    """Whether none of the numbers is NaN."""
    return not any(math.isnan(v) for v in values)


def number(value: float) -> str:
    """Three digits, or a whole number with commas; ``-`` for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:.3g}" if abs(value) < 999.5 or math.isinf(value) else f"{value:,.0f}"


def steps(value: float) -> str:
    """A number of steps."""
    if math.isinf(value):
        return "infinitely many steps"
    count = f"{value:,.0f}"
    return f"{count} step{'' if count == '1' else 's'}"


def percent(value: float, sign: bool = True) -> str:
    """A share in per cent."""
    if math.isnan(value):
        return "-"
    plus = "+" if sign else ""
    return f"{100 * value:{plus}.2g} %" if abs(value) < 0.995 else f"{100 * value:{plus},.0f} %"


def times(value: float) -> str:
    """A factor."""
    return f"{number(value)} times"


def angle(radians: float) -> str:
    """An angle in radians, and in degrees behind it."""
    return f"{number(radians)} radians ({number(math.degrees(radians))} degrees)"
