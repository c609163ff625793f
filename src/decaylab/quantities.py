"""How a size written by a person (``124M``, ``3.26B``, ``2^19``, ``2%``) becomes a number, and back.

Counts are exact: ``3.26B`` is 3,260,000,000, read as a decimal and never through a float.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation, localcontext

from decaylab.errors import DecaylabError, shown

_SUFFIXES = {"": 0, "k": 3, "m": 6, "b": 9, "g": 9, "t": 12, "p": 15, "e": 18}
_NUMBER = re.compile(
    r"""(?P<mantissa>\d[\d,_]*(?:\.\d*)?|\.\d+)   # 124, 3.26, 3,260,252,160
        (?:e(?P<exponent>[+-]?\d+)|\s?(?P<suffix>[a-zA-Z]))?   # e9, or M
        (?:\s+(?P<unit>[a-zA-Z]+))?""",
    re.VERBOSE | re.IGNORECASE,
)
_POWER = re.compile(r"(?P<base>\d+)\s?(?:\^|\*\*)\s?(?P<power>\d{1,3})(?:\s+(?P<unit>[a-zA-Z]+))?")
_LARGEST = Decimal(10) ** 30
_MOST_ROUNDING = 0.05
_MOST_DIGITS = 31


def parse_count(text: str | int | float, name: str, unit: str = "") -> int:
    """Read a count of things: parameters, tokens, sequences, steps.

    Accepts plain numbers, thousands separators (``3,260,252,160`` or ``3_260_252_160``), powers (``1e9``, ``2^19``) and
    the suffixes K, M, B (or G), T, P, E for 10^3 up to 10^18, in either case; and the unit's name after a space.

    Args:
        text: What was written.
        name: What it is for, named in the error (``"--tokens"``).
        unit: The unit that is wanted, in the plural (``"tokens"``); another one in ``text`` is an error.

    Returns:
        The count, at least 1.

    Raises:
        DecaylabError: It is not a number, not whole, not positive, absurdly large, or in another unit.
    """
    written = str(text).strip()
    number = _decimal(written, name, unit)
    if number <= 0:
        raise DecaylabError(f"{name} must be at least 1, got {shown(written)}")
    if number != number.to_integral_value():
        raise DecaylabError(f"{name} must be a whole number, got {shown(written)}")
    return int(number)


def parse_steps(text: str | int, name: str, total_steps: int) -> int:
    """Read a number of steps, or a share of the run: ``400`` or ``2%``.

    Args:
        text: What was written.
        name: What it is for, named in the error (``"--warmup"``).
        total_steps: Length of the run, which a percentage refers to.

    Returns:
        Steps, 0 or more; a share is rounded to the nearest step.

    Raises:
        DecaylabError: It is neither, or a share above 100 %.
    """
    written = str(text).strip()
    if written.endswith("%"):
        share = _decimal(written[:-1].strip(), name, "")
        if share > 100:
            raise DecaylabError(f"{name} is a share of the run and at most 100%, got {shown(written)}")
        if share < 0:
            raise DecaylabError(f"{name} must be at least 0%, got {shown(written)}")
        return round(float(share) / 100 * total_steps)
    number = _decimal(written, name, "steps")
    if number < 0:
        raise DecaylabError(f"{name} must be at least 0, got {shown(written)}")
    if 0 < number < 1:
        percent = format_number(100 * float(number))
        raise DecaylabError(
            f"{name} is a number of steps, got {shown(written)}; for that share of the run write {percent}%"
        )
    return 0 if number == 0 else parse_count(written, name, "steps")


def rounding(text: str | int | float) -> float:
    """Return how far off a written count may be, relatively: half a unit of its last digit, 5 % at most.

    ``3.26B`` may stand for anything from 3.255 to 3.265 billion, so 0.0015; ``3,260,252,160`` and ``2^19`` are exact.
    ``1B`` gives 0.05: nobody writes it for half a billion.
    """
    match = _NUMBER.fullmatch(str(text).strip())
    if match is None or not (match["suffix"] or match["exponent"]):
        return 0.0
    mantissa = match["mantissa"].replace(",", "").replace("_", "")
    decimals = len(mantissa.partition(".")[2])
    half = Decimal(5).scaleb(-decimals - 1)
    return min(float(half / max(Decimal(mantissa), half)), _MOST_ROUNDING)


def _decimal(written: str, name: str, unit: str) -> Decimal:
    if written.startswith("-") and (_POWER.fullmatch(written[1:]) or _NUMBER.fullmatch(written[1:])):
        return -_decimal(written[1:], name, unit)  # a number, though no count: the caller says what is allowed
    power = _POWER.fullmatch(written)
    match = power or _NUMBER.fullmatch(written)
    if match is None:
        hint = " (a comma groups thousands: write 3.26B with a point)" if re.search(r"\d,\d", written) else ""
        raise DecaylabError(f"{name} must be a number such as 124M, 3.26B, 1e9 or 2^19, got {shown(written)}{hint}")
    _check_unit(match["unit"], name, unit)
    if power:
        if len(power["base"]) > _MOST_DIGITS:
            raise DecaylabError(f"{name} is out of any range: {shown(written)}")
        return _bounded(Decimal(int(power["base"]) ** int(power["power"])), name, written)
    mantissa = match["mantissa"]
    if "," in mantissa and not re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d*)?", mantissa):
        raise DecaylabError(
            f"{name}: a comma groups thousands, so {shown(written)} is unclear; write 3.26B with a point"
        )
    suffix = (match["suffix"] or "").lower()
    if suffix not in _SUFFIXES:
        raise DecaylabError(f"{name}: unknown suffix {match['suffix']!r} in {shown(written)}; known: K, M, B, T, P, E")
    exponent = int(match["exponent"] or 0) + _SUFFIXES[suffix]
    if abs(exponent) > 60:
        raise DecaylabError(f"{name} is out of any range: {shown(written)}")
    with localcontext() as context:
        context.prec = 80
        try:
            return _bounded(Decimal(mantissa.replace(",", "").replace("_", "")).scaleb(exponent), name, written)
        except InvalidOperation:
            raise DecaylabError(f"{name} is not a number: {shown(written)}") from None


def _bounded(number: Decimal, name: str, written: str) -> Decimal:
    if number > _LARGEST:
        raise DecaylabError(f"{name} is out of any range: {shown(written)}")
    return number


def _check_unit(found: str | None, name: str, wanted: str) -> None:
    if found and found.lower().rstrip("s") != wanted.lower().rstrip("s"):
        need = f"is counted in {wanted}" if wanted else "has no unit"
        raise DecaylabError(f"{name} {need}, not in {found!r}: give the number without it, or convert")


def format_count(number: float, digits: int = 3) -> str:
    """Write a count for reading: all digits below a million (``33,165``), else a suffix (``3.26B``, ``124M``).

    Args:
        number: The count.
        digits: Significant digits of a shortened number.
    """
    if abs(number) < 1e6:
        return f"{number:,.0f}" if number == round(number) or abs(number) >= 1000 else format_number(number, digits)
    for exponent, suffix in ((6, "M"), (9, "B"), (12, "T")):
        if abs(float(f"{number:.{digits}g}")) < 10 ** (exponent + 3):
            return f"{format_number(number / 10**exponent, digits)}{suffix}"
    return format_number(number, digits)


def format_number(number: float, digits: int = 4) -> str:
    """Write a number with so many significant digits, in plain decimals between 0.001 and a million.

    Args:
        number: Any number.
        digits: Significant digits; trailing zeros after the point are dropped.
    """
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    rounded = float(f"{number:.{digits}g}")
    if not 1e-3 <= abs(rounded) < 1e6:
        mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent)}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    written = f"{rounded:,.{decimals}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written
