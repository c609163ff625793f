"""How numbers are written for readers: no more digits than the interval supports, a real minus sign, units."""

from __future__ import annotations

import math

from decaylab.experiments.evidence import Comparison

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def estimate(comparison: Comparison) -> str:
    """Write the estimate with its unit: ``−2.10 percentage points``, or ``0.87 × 10⁻⁶``."""
    scale, power = _power(comparison)
    decimals = _decimals(comparison.low * scale, comparison.high * scale)
    return f"{_number(comparison.estimate * scale, decimals)}{power} {comparison.unit}".rstrip()


def interval(comparison: Comparison) -> str:
    """Write the interval: ``−2.61 to −1.49``."""
    if math.isinf(comparison.low) and math.isinf(comparison.high) and comparison.low != comparison.high:
        return "no interval"
    scale, power = _power(comparison)
    ends = comparison.low * scale, comparison.high * scale
    low, high = (_number(v, _decimals(*ends)) for v in ends)
    return f"{low} to {high}{power}"


def bounded(value: float, low: float, high: float) -> str:
    """Write a number with its interval.

    >>> bounded(1.81234, 1.8034, 1.8212)
    '1.8123 (1.8034 to 1.8212)'
    """
    middle, start, end = (_number(v, _decimals(low, high)) for v in (value, low, high))
    return f"{middle} ({start} to {end})"


def plain(value: float, digits: int = 4) -> str:
    """Write a number with a few significant digits and a real minus sign.

    >>> plain(-0.00123456)
    '−0.001235'
    """
    return _number(value, None, digits)


def fixed(value: float, decimals: int = 2) -> str:
    """Write a number with fixed decimals and a real minus sign."""
    return _number(value, decimals)


def _decimals(low: float, high: float) -> int | None:
    """Two significant digits of the interval's half-width decide how many decimals are worth printing."""
    half = (high - low) / 2
    if not math.isfinite(half) or half <= 0:
        return None
    return min(max(1 - math.floor(math.log10(half)), 0), 8)


def _power(comparison: Comparison) -> tuple[float, str]:
    """Very small and very large numbers share one power of ten: the factor that takes it out, and how it is written."""
    numbers = (comparison.estimate, comparison.low, comparison.high)
    largest = max((abs(v) for v in numbers if math.isfinite(v)), default=0.0)
    if largest == 0 or 1e-3 <= largest < 1e6:
        return 1.0, ""
    exponent = math.floor(math.log10(largest))
    return 10.0**-exponent, f" × 10{str(exponent).translate(_RAISED)}"


def _number(value: float, decimals: int | None, digits: int = 4) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}g}" if decimals is None else f"{value:,.{decimals}f}"
    if not text.strip("-0.,"):
        text = text.removeprefix("-")  # no minus before a zero
    return text.replace("-", "−").replace(",", "\N{NARROW NO-BREAK SPACE}")
