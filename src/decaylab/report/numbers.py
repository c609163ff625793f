"""How numbers are written for readers: no more digits than the interval supports, a real minus sign, units."""

from __future__ import annotations

import math

from decaylab.experiments.evidence import Comparison


def estimate(comparison: Comparison) -> str:
    """Write the estimate with its unit: ``−2.10 percentage points``."""
    return _with_unit(_number(comparison.estimate, _decimals(comparison)), comparison.unit)


def interval(comparison: Comparison) -> str:
    """Write the interval: ``−2.61 to −1.49``."""
    if math.isinf(comparison.low) and math.isinf(comparison.high) and comparison.low != comparison.high:
        return "no interval"
    decimals = _decimals(comparison)
    return f"{_number(comparison.low, decimals)} to {_number(comparison.high, decimals)}"


def plain(value: float, digits: int = 4) -> str:
    """Write a number with a few significant digits and a real minus sign.

    >>> plain(-0.00123456)
    '−0.001235'
    """
    return _number(value, None, digits)


def fixed(value: float, decimals: int = 2) -> str:
    """Write a number with fixed decimals and a real minus sign."""
    return _number(value, decimals)


def _decimals(comparison: Comparison) -> int | None:
    """Two significant digits of the interval's half-width decide how many decimals are worth printing."""
    half = (comparison.high - comparison.low) / 2
    if not math.isfinite(half) or half <= 0:
        return None
    return min(max(1 - math.floor(math.log10(half)), 0), 8)


def _number(value: float, decimals: int | None, digits: int = 4) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}g}" if decimals is None else f"{value:,.{decimals}f}"
    if not text.strip("-0.,"):
        text = text.removeprefix("-")  # no minus before a zero
    return text.replace("-", "−").replace(",", "\N{NARROW NO-BREAK SPACE}")


def _with_unit(number: str, unit: str) -> str:
    return f"{number} {unit}" if unit else number
