"""Marks that tell curves apart without their colours, and the keys of the page's legends."""

from __future__ import annotations

import numpy as np
import pandas as pd
from markupsafe import Markup

from decaylab.reporting.figure import Figure

SHAPES = (
    *("circle", "square", "triangle-up", "diamond"),
    *("triangle-down", "cross", "triangle-right", "triangle-left"),
)
FEW = 25
"""Curves with no more points than this show all of them."""
_MARKS = 6  # on a curve with more points
# Paths around (0, 0), about as large as vega draws them.
_PATHS = {
    "circle": "M4 0A4 4 0 1 1 -4 0A4 4 0 1 1 4 0Z",
    "square": "M-3.5 -3.5H3.5V3.5H-3.5Z",
    "triangle-up": "M0 -4L4.4 3.6H-4.4Z",
    "diamond": "M0 -4.6L3.8 0L0 4.6L-3.8 0Z",
    "triangle-down": "M0 4L4.4 -3.6H-4.4Z",
    "cross": "M-4.2 -1.4H-1.4V-4.2H1.4V-1.4H4.2V1.4H1.4V4.2H-1.4V1.4H-4.2Z",
    "triangle-right": "M4 0L-3.6 4.4V-4.4Z",
    "triangle-left": "M-4 0L3.6 4.4V-4.4Z",
}


def shapes(figure: Figure) -> dict[str, str]:
    """Return the mark of each colour of a chart: by itself it says what the colour says, in print or to any eye."""
    return {value: SHAPES[i % len(SHAPES)] for i, value in enumerate(figure.colours)}


def marked(figure: Figure) -> bool:
    """Whether the curves or points of a chart are told apart by marks too: where there are several colours.

    Points whose shape says something else keep that.
    """
    chart = figure.chart
    several = chart.color is not None and len(figure.colours) > 1
    return several and (chart.kind == "line" or (chart.kind == "points" and not chart.dash))


def with_marks(points: pd.DataFrame, figure: Figure) -> pd.DataFrame:
    """Add a column ``marked``: 1 where a curve bears its mark, a few evenly spaced places on each, all of a short one.

    The places differ from colour to colour, so that curves on top of each other show all of their marks.
    """
    place = points["x"].to_numpy(dtype=float) if figure.numeric_x else np.arange(len(points), dtype=float)
    if figure.chart.log_x and figure.numeric_x:
        place = np.log(place)
    mark = np.zeros(len(points), dtype=int)
    order = list(figure.colours)
    whole = (place.min(), place.max()) if len(place) else (0.0, 0.0)
    for (colour, _), curve in points.reset_index(drop=True).groupby(["color", "dash"], sort=False):
        rows = curve.index.to_numpy()
        if len(rows) <= FEW:
            mark[rows] = 1
            continue
        shift = (order.index(str(colour)) + 0.5) / len(order)
        wanted = whole[0] + (np.arange(_MARKS) + shift) / _MARKS * (whole[1] - whole[0])
        wanted = wanted[(wanted >= place[rows].min()) & (wanted <= place[rows].max())]
        mark[rows[np.abs(place[rows][:, None] - wanted[None, :]).argmin(axis=0)]] = 1
    return points.assign(marked=mark)


def key(figure: Figure, value: str) -> Markup:
    """Return the key of a colour in the page's legend: its line, with its mark where it has one."""
    colour = figure.colours[value]
    line = '<line x1="1" x2="27" y1="6" y2="6" stroke="{}" stroke-width="2.5" stroke-linecap="round"/>'
    body = Markup(line).format(colour) if figure.chart.kind == "line" else Markup("")
    if marked(figure):
        path = Markup('<path transform="translate(14 6)" fill="{}" d="{}"/>').format(
            colour, _PATHS[shapes(figure)[value]]
        )
        body += path
    elif figure.chart.kind != "line":
        body += Markup('<rect x="8" y="1" width="12" height="10" rx="1" fill="{}"/>').format(colour)
    return Markup('<svg width="28" height="12" aria-hidden="true">{}</svg>').format(body)
