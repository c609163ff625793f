"""Colours that a colour-blind reader can tell apart, and the same ones for the same setting in every figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

Palette = Literal["plain", "wd", "lr", "ordered"]

# After Okabe and Ito (2008), without yellow and black: all are visible as thin lines on white and on near-black.
PLAIN = ("#d55e00", "#2182c4", "#009e73", "#cc79a7", "#e69f00", "#56a8e0", "#8c6bb1", "#a6761d")
NEUTRAL = "#868e96"
# Along the hues from blue to orange with rising lightness: the order can be read off without the legend.
_RAMP = ((76, 104, 201), (35, 142, 167), (94, 170, 83), (208, 160, 32), (222, 104, 44))

# Settings that come back in many figures.
_FIXED: Mapping[str, Mapping[str, str]] = {
    "wd": {"0": NEUTRAL, "none": NEUTRAL, "with": PLAIN[0], "0.1": PLAIN[0], "0.3": PLAIN[1], "0.6": PLAIN[2]},
    "lr": {"large": PLAIN[0], "small": PLAIN[1]},
}


def colours(palette: Palette, values: Iterable[str], everywhere: Iterable[str] = ()) -> dict[str, str]:
    """Give each value of a chart its colour.

    Args:
        palette: ``plain`` counts through the colours. ``wd`` and ``lr`` give a value the same colour in every figure of
            a page: no decay is grey, learning rates go along a ramp. ``ordered`` goes along the ramp.
        values: The values of this chart, in the order of the legend.
        everywhere: The values of all charts of the page with this palette.

    Returns:
        Value to colour, in the order of ``values``.
    """
    own = list(dict.fromkeys(values))
    if palette == "plain":
        return {value: PLAIN[i % len(PLAIN)] for i, value in enumerate(own)}
    if palette == "ordered":
        return dict(zip(own, ramp(len(own)), strict=True))
    fixed = _FIXED[palette]
    rest = sorted({v for v in (*own, *everywhere) if v not in fixed}, key=_numeric)
    if palette == "lr":
        given = dict(zip(rest, ramp(len(rest)), strict=True))
    else:
        free = [c for c in PLAIN if c not in fixed.values()] + list(PLAIN)
        given = {value: free[i % len(free)] for i, value in enumerate(rest)}
    return {value: fixed.get(value) or given[value] for value in own}


def ramp(count: int) -> list[str]:
    """Return ``count`` colours along the ramp, ends included.

    >>> ramp(2)
    ['#4c68c9', '#de682c']
    """
    found = []
    for i in range(count):
        place = i / (count - 1) * (len(_RAMP) - 1) if count > 1 else 0.0
        start = min(int(place), len(_RAMP) - 2)
        share = place - start
        mixed = (round(a + (b - a) * share) for a, b in zip(_RAMP[start], _RAMP[start + 1], strict=True))
        found.append("#" + "".join(f"{channel:02x}" for channel in mixed))
    return found


def _numeric(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
