"""A comparison as a small picture: its interval and its seeds, beside the region that the claim says they lie in."""

from __future__ import annotations

import math

from markupsafe import Markup

from decaylab.experiments.evidence import Comparison
from decaylab.reporting.numbers import plain

WIDTH, HEIGHT = 320, 44
_LEFT, _RIGHT, _MIDDLE = 8, WIDTH - 8, 16


def picture(comparison: Comparison) -> Markup:
    """Draw the interval as an inline SVG in the page's own colours.

    The claimed region is shaded; a dot is the estimate, the bar its interval, small ticks the seeds. Infinite ends run
    off the picture with an arrow. Without any number there is nothing to draw and the answer is empty.
    """
    claimed = [end for end in comparison.claimed if math.isfinite(end)]
    if math.isnan(comparison.estimate):
        return Markup("")
    numbers = [comparison.estimate, comparison.low, comparison.high, *comparison.values, *claimed]
    finite = [v for v in numbers if math.isfinite(v)] or [0.0]
    start, end = min(finite), max(finite)
    margin = 0.12 * (end - start) or abs(start) or 1.0
    start, end = start - margin, end + margin

    def x(value: float) -> float:
        if math.isinf(value):
            return _LEFT if value < 0 else _RIGHT
        return _LEFT + (value - start) / (end - start) * (_RIGHT - _LEFT)

    left, right = (x(e) for e in comparison.claimed)
    parts = [
        f'<rect class="claimed" x="{left:.1f}" y="2" width="{max(right - left, 0):.1f}" height="28" rx="2"/>',
        f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="30" y2="30"/>',
    ]
    parts += [f'<line class="bound" x1="{x(e):.1f}" x2="{x(e):.1f}" y1="2" y2="30"/>' for e in claimed]
    parts += [f'<text x="{x(e):.1f}" y="42" text-anchor="middle">{plain(e)}</text>' for e in claimed]
    for value in comparison.values:
        if math.isfinite(value):
            parts.append(f'<line class="seed" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="24" y2="30"/>')
    low, high = x(comparison.low), x(comparison.high)
    parts.append(f'<line class="interval" x1="{low:.1f}" x2="{high:.1f}" y1="{_MIDDLE}" y2="{_MIDDLE}"/>')
    for edge, value, sign in ((low, comparison.low, 1), (high, comparison.high, -1)):
        if math.isinf(value):
            arrow = f"M{edge + 6 * sign:.1f} {_MIDDLE - 4} L{edge:.1f} {_MIDDLE} L{edge + 6 * sign:.1f} {_MIDDLE + 4}"
            parts.append(f'<path class="interval" d="{arrow}"/>')
    if math.isfinite(comparison.estimate):
        parts.append(f'<circle class="estimate" cx="{x(comparison.estimate):.1f}" cy="{_MIDDLE}" r="4.5"/>')
    label = f"interval {plain(comparison.low)} to {plain(comparison.high)}"
    body = "".join(parts)
    return Markup(f'<svg class="forest" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{body}</svg>')
