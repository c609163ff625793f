"""The look of every chart: axes, scales, colours, dashes, inks, and how the legend's choice fades the rest."""

from __future__ import annotations

from typing import Any

import altair as alt

from decaylab.reporting.figure import Figure
from decaylab.reporting.legend import SHAPES, marked, shapes

DASHES: tuple[list[int], ...] = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [12, 4])
FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Helvetica, Arial, sans-serif"


def encoding(figure: Figure, panel: str, *, interactive: bool) -> dict[str, Any]:
    """Return the channels that all layers of a panel share: places, colours, dashes or shapes."""
    chart, points = figure.chart, figure.points
    found: dict[str, Any] = {"x": _x(figure, interactive), "y": y(figure, "y", panel, interactive=interactive)}
    if chart.color:
        names = list(figure.colours)
        scale = alt.Scale(domain=names, range=[figure.colours[n] for n in names])
        found["color"] = alt.Color("color:N", scale=scale, legend=_colour_legend(figure, interactive))
        if chart.kind == "bars" and points.groupby("x")["color"].nunique().max() > 1:
            found["xOffset"] = alt.XOffset("color:N", sort=names)
    else:
        found["color"] = alt.ColorValue(next(iter(figure.colours.values())))
    if chart.dash:
        names, legend = figure.dashes, _legend(chart.dash_title, chart.kind, interactive)
        if chart.kind == "line":
            scale = alt.Scale(domain=names, range=[DASHES[i % len(DASHES)] for i in range(len(names))])
            found["strokeDash"] = alt.StrokeDash("dash:N", scale=scale, legend=legend)
        else:
            scale = alt.Scale(domain=names, range=[SHAPES[i % len(SHAPES)] for i in range(len(names))])
            found["shape"] = alt.Shape("dash:N", scale=scale, legend=legend)
    if chart.kind == "points":
        found |= shape(figure, interactive)
    return found


def shape(figure: Figure, interactive: bool) -> dict[str, Any]:
    """Return the channel that says by shape what the colour says, where a chart has one."""
    if not marked(figure):
        return {}
    marks = shapes(figure)
    scale = alt.Scale(domain=list(marks), range=list(marks.values()))
    return {"shape": alt.Shape("color:N", scale=scale, legend=_colour_legend(figure, interactive))}


def y(figure: Figure, field: str, panel: str, *, interactive: bool) -> alt.Y:
    """Return the vertical channel of one field; the page writes its title itself, where it can wrap."""
    title = None if interactive else figure.chart.y_title or figure.chart.y
    # 0.00002 is hard to tell from 0.000002
    small = float(figure.points["y"].abs().max()) < 1e-2 if figure.chart.log_y else False
    axis = alt.Axis(format="~e") if small else alt.Undefined
    return alt.Y(f"{field}:Q", title=title, scale=y_scale(figure, panel), axis=axis)


def opacity(value: float, *, interactive: bool) -> alt.OpacityValue:
    """Return an opacity that fades whatever the legend has not picked."""
    if not interactive:
        return alt.OpacityValue(value)
    shown = (
        "(length(pickedColor) == 0 || indexof(pickedColor, datum.color) >= 0)"
        " && (length(pickedDash) == 0 || indexof(pickedDash, datum.dash) >= 0)"
    )
    return alt.OpacityValue(value / 10, condition={"test": shown, "value": value})


def y_scale(figure: Figure, panel: str) -> alt.Scale:
    """Return the vertical scale: the declared range, or one that shows every mean and both ends of every interval.

    An axis that cuts an interval hides what it says, such as that it covers zero.
    """
    chart = figure.chart
    kind: Any = "log" if chart.log_y else "linear"
    if chart.y_domain:
        return alt.Scale(type=kind, domain=list(chart.y_domain), nice=False)
    points = figure.points if chart.share_y else figure.points[figure.points["panel"] == panel]
    ends = points[["y", "low", "high"]]
    low, high = float(ends.min().min()), float(ends.max().max())
    if chart.log_y:
        return alt.Scale(type=kind, domain=[low, high])
    if chart.kind == "bars":
        low, high = min(low, 0.0), max(high, 0.0)
    return alt.Scale(domain=[low, high], nice=True, zero=False)


def x_field(figure: Figure) -> str:
    """Return the horizontal field with its Vega-Lite type."""
    return "x:Q" if figure.numeric_x else "x:N"


def config(ink: str) -> dict[str, Any]:
    """Return the theme in one ink: ``currentColor`` for the page, a colour for a drawing on white."""
    inks = {name: ink for name in ("labelColor", "titleColor", "domainColor", "tickColor", "gridColor")}
    opacities = {"gridOpacity": 0.1, "domainOpacity": 0.4, "tickOpacity": 0.4, "labelOpacity": 0.85}
    axis = {**inks, **opacities, "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"}
    # The title lies flat above the axis: readable without turning the head.
    flat = {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "start", "titleX": 0, "titleY": -12, "domain": False}
    legend = {"labelColor": ink, "titleColor": ink, "labelFontSize": 11, "titleFontSize": 11, "labelLimit": 400}
    return {
        "font": FONT,
        "background": "transparent" if ink == "currentColor" else "white",
        "view": {"stroke": None},
        "axis": axis,
        "axisX": {"grid": False},
        "axisY": flat,
        "legend": {**legend, "titleFontWeight": "normal", "symbolStrokeWidth": 2},
        "title": {"color": ink, "fontSize": 12, "fontWeight": 600, "anchor": "start"},
    }


def _x(figure: Figure, interactive: bool) -> alt.X:
    chart = figure.chart
    if not figure.numeric_x:  # names say what they are; a long one breaks at its commas
        axis = alt.Axis(labelAngle=0, labelOverlap=False, labelLimit=90, labelExpr="split(datum.label, ', ')")
        band: Any = alt.Scale(paddingInner=0.35, paddingOuter=0.2) if chart.kind == "bars" else alt.Undefined
        return alt.X("x:N", title=chart.x_title or None, sort=None, axis=axis, scale=band)
    scale = alt.Scale(zero=False, nice=False)
    if chart.log_x:
        scale = alt.Scale(type="log", nice=False, padding=alt.Undefined if chart.kind == "line" else 20)
    # On the page the room decides; a drawing has several views, and no such thing as one width.
    ticks: Any = alt.ExprRef("ceil(width / 80)") if interactive else 5
    axis = alt.Axis(labelFlush=True, labelOverlap=True, tickCount=ticks)
    return alt.X("x:Q", title=chart.x_title or chart.x, scale=scale, axis=axis)


def _colour_legend(figure: Figure, interactive: bool) -> alt.Legend | None:
    """With marks, their legend is the colours' too: a drawing joins legends that are alike."""
    chart = figure.chart
    return _legend(chart.color_title, "points" if marked(figure) else chart.kind, interactive)


def _legend(title: str, kind: str, interactive: bool) -> alt.Legend | None:
    """The page draws its legends itself, so that they wrap on a phone and answer to the keyboard."""
    if interactive:
        return None
    symbol: Any = "stroke" if kind == "line" else alt.Undefined
    return alt.Legend(title=title or None, orient="bottom", columns=4, symbolType=symbol, symbolOpacity=1)
