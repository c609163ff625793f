"""How a chart looks: one declaration becomes interactive views for the page and one static drawing for a paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import pandas as pd

from decaylab.experiments.spec import Chart
from decaylab.report.aggregate import thin

DASHES: tuple[list[int], ...] = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [12, 4])
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross")
FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Helvetica, Arial, sans-serif"
_Mark = tuple[Any, float]  # a layer and its opacity
_FEW = 25  # curves with no more points than this also show them


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart with its numbers.

    Attributes:
        chart: The declaration.
        points: What ``aggregate.drawn`` gave.
        colours: Legend entry to colour.
        rules: Vertical marks.
    """

    chart: Chart
    points: pd.DataFrame
    colours: Mapping[str, str]
    rules: Sequence[tuple[float, str]] = field(default=())

    @property
    def panels(self) -> list[str]:
        """The small multiples, in order; one without a name when there are none."""
        return list(dict.fromkeys(self.points["panel"]))

    @property
    def dashes(self) -> list[str]:
        """Entries of the legend of the dashes."""
        return list(dict.fromkeys(self.points["dash"])) if self.chart.dash else []


def page_views(figure: Figure) -> list[tuple[str, dict[str, Any]]]:
    """Return one Vega-Lite specification a panel, as wide as the page lets it be, without a legend of its own.

    The page writes the title of the vertical axis above each view, draws the legend, and sets the parameters
    ``pickedColor`` and ``pickedDash`` of all panels at once. Inks are ``currentColor``: a view follows a light or a dark
    page.
    """
    points = thin(figure.points, figure.chart)
    views = []
    for panel in figure.panels:
        view = _view(figure, points[points["panel"] == panel], ink="currentColor", interactive=True)
        view = view.properties(width="container", height=260).configure(**_config("currentColor"))
        views.append((panel, _compact(view.to_dict(validate=False))))
    return views


def static_view(figure: Figure) -> Any:
    """Return the whole chart, panels side by side with a legend, on white."""
    points = thin(figure.points, figure.chart)
    wide = len(figure.panels) == 1
    views = []
    for panel in figure.panels:
        view = _view(figure, points[points["panel"] == panel], ink="#22262b", interactive=False)
        views.append(view.properties(width=520 if wide else 300, height=280 if wide else 220, title=panel))
    body = views[0] if wide else alt.concat(*views, columns=3 if len(views) % 2 else 2)
    title = alt.TitleParams(figure.chart.title, anchor="start", fontSize=14, offset=14)
    if wide:
        title = alt.TitleParams(figure.panels[0] or figure.chart.title, anchor="start", fontSize=14, offset=14)
    return body.properties(title=title, background="white").configure(**_config("#22262b"))


def _view(figure: Figure, points: pd.DataFrame, *, ink: str, interactive: bool) -> Any:
    kind = figure.chart.kind
    layers = [_rules(figure, ink)] if figure.rules else []
    encoding = _encoding(figure, points, interactive)
    base = alt.Chart(_inline(points)).encode(**encoding)
    if kind == "bars":
        marks = _bars(figure, base, ink)
    elif kind == "points":
        marks = _points(figure, base)
    else:
        marks = _lines(figure, base, points)
        if (points["count"] > 1).any():
            # An area has no dashes, so the curves are told apart by a channel that draws nothing.
            plain = {**{k: v for k, v in encoding.items() if k != "strokeDash"}, "detail": "dash:N"}
            marks.insert(0, (_band(figure, alt.Chart(_inline(points)).encode(**plain)), 0.16))
    for mark, opacity in marks:
        layers.append(mark.encode(opacity=_opacity(opacity, interactive)))
    if interactive:
        layers += _tooltips(figure, base)
    view = alt.layer(*layers)
    if interactive:
        view = view.add_params(alt.param(name="pickedColor", value=[]), alt.param(name="pickedDash", value=[]))
    return view


def _lines(figure: Figure, base: Any, points: pd.DataFrame) -> list[_Mark]:
    clip = figure.chart.y_domain is not None
    few = len(points) <= _FEW * max(points.groupby(["color", "dash"]).ngroups, 1)
    marks: list[_Mark] = [(base.mark_line(strokeWidth=1.8, clip=clip, point={"size": 28} if few else False), 1.0)]
    if points["ended_early"].any():
        cross = base.transform_filter("datum.ended_early > 0")
        marks.append((cross.mark_point(shape="cross", angle=45, size=90, filled=True), 1.0))
    return marks


def _band(figure: Figure, base: Any) -> Any:
    area = base.mark_area(clip=figure.chart.y_domain is not None)
    area = area.encode(y=alt.Y("low:Q", scale=_y_scale(figure), title=None), y2="high:Q")
    return area.transform_filter("isValid(datum.low)")


def _points(figure: Figure, base: Any) -> list[_Mark]:
    bar = base.mark_rule(strokeWidth=1.6).encode(y=alt.Y("low:Q", scale=_y_scale(figure), title=None), y2="high:Q")
    bar = bar.transform_filter("isValid(datum.low)")
    return [(bar, 1.0), (base.mark_point(filled=True, size=60), 1.0), (_each(base), 0.6)]


def _bars(figure: Figure, base: Any, ink: str) -> list[_Mark]:
    error = base.mark_rule(strokeWidth=1.4).encode(
        y=alt.Y("low:Q", scale=_y_scale(figure), title=None), y2="high:Q", color=alt.value(ink)
    )
    return [(base.mark_bar(), 0.75), (error.transform_filter("isValid(datum.low)"), 1.0), (_each(base), 0.6)]


def _each(base: Any) -> Any:
    """The seeds themselves, small, beside their mean."""
    split = base.transform_filter("datum.each != ''").transform_calculate(seed_values="split(datum.each, ' ')")
    seeds = split.transform_flatten(["seed_values"], as_=["seed_value"])
    return seeds.mark_point(filled=True, size=12, xOffset=9).encode(y="seed_value:Q")


def _opacity(value: float, interactive: bool) -> Any:
    """Fade what the legend has not picked."""
    if not interactive:
        return alt.value(value)
    shown = (
        "(length(pickedColor) == 0 || indexof(pickedColor, datum.color) >= 0)"
        " && (length(pickedDash) == 0 || indexof(pickedDash, datum.dash) >= 0)"
    )
    return alt.when(shown).then(alt.value(value)).otherwise(alt.value(value / 10))


def _rules(figure: Figure, ink: str) -> Any:
    base = alt.Chart(alt.InlineData(values=[{"x": x, "text": text} for x, text in figure.rules]))
    rule = base.mark_rule(color=ink, strokeDash=[3, 3], opacity=0.55).encode(x="x:Q")
    text = base.mark_text(align="left", baseline="top", dx=4, fontSize=11, color=ink, opacity=0.75)
    return alt.layer(rule, text.encode(x="x:Q", y=alt.value(2), text="text:N"))


def _tooltips(figure: Figure, base: Any) -> list[Any]:
    """The nearest point of the page answers: mean, interval and number of seeds."""
    chart = figure.chart
    fields = [alt.Tooltip("color:N", title=chart.color_title or chart.color or "")] if chart.color else []
    fields += [alt.Tooltip("dash:N", title=chart.dash_title or chart.dash or "")] if chart.dash else []
    fields += [
        alt.Tooltip("x" + _x_type(figure), title=chart.x_title or chart.x, format=_format(figure)),
        alt.Tooltip("y:Q", title=chart.y_title or "value", format=".4~g"),
    ]
    if (figure.points["count"] > 1).any():
        fields.append(alt.Tooltip("interval:N", title="95 % interval"))
        fields.append(alt.Tooltip("count:Q", title="seeds"))
    near = alt.selection_point(
        on="pointerover", nearest=chart.kind == "line", fields=["x", "color", "dash"], empty=False
    )
    interval = "isValid(datum.low) ? format(datum.low, '.4~g') + ' to ' + format(datum.high, '.4~g') : 'one seed'"
    dot = base.transform_calculate(interval=interval).mark_point(filled=True, size=70)
    opacity = alt.when(near).then(alt.value(1)).otherwise(alt.value(0.001))
    return [dot.encode(opacity=opacity, tooltip=fields).add_params(near)]


def _encoding(figure: Figure, points: pd.DataFrame, interactive: bool) -> dict[str, Any]:
    chart = figure.chart
    numeric = _x_type(figure) == ":Q"
    x_axis = alt.Axis(labelFlush=True, labelAngle=alt.Undefined if numeric else 0, labelOverlap=True, tickCount=6)
    x_scale: Any = alt.Scale(zero=False, nice=False) if numeric else alt.Undefined
    if chart.log_x:
        x_scale = alt.Scale(type="log", nice=False, padding=alt.Undefined if chart.kind == "line" else 20)
    encoding: dict[str, Any] = {
        "x": alt.X(
            "x" + _x_type(figure),
            title=chart.x_title or chart.x,
            scale=x_scale,
            axis=x_axis,
            sort=None if not numeric else alt.Undefined,
        ),
        "y": alt.Y("y:Q", title=None if interactive else chart.y_title or chart.y, scale=_y_scale(figure)),
    }
    if chart.color:
        names = list(figure.colours)
        scale = alt.Scale(domain=names, range=[figure.colours[n] for n in names])
        legend = None if interactive else alt.Legend(title=chart.color_title or None, orient="bottom", columns=4)
        encoding["color"] = alt.Color("color:N", scale=scale, legend=legend)
        if chart.kind == "bars" and points.groupby("x")["color"].nunique().max() > 1:
            encoding["xOffset"] = alt.XOffset("color:N", sort=names)
    else:
        encoding["color"] = alt.value(next(iter(figure.colours.values())))
    if chart.dash:
        legend = None if interactive else alt.Legend(title=chart.dash_title or None, orient="bottom", columns=4)
        names = figure.dashes
        if chart.kind == "line":
            range_ = [DASHES[i % len(DASHES)] for i in range(len(names))]
            encoding["strokeDash"] = alt.StrokeDash(
                "dash:N", scale=alt.Scale(domain=names, range=range_), legend=legend
            )
        else:
            range_s = [SHAPES[i % len(SHAPES)] for i in range(len(names))]
            encoding["shape"] = alt.Shape("dash:N", scale=alt.Scale(domain=names, range=range_s), legend=legend)
    return encoding


def _x_type(figure: Figure) -> str:
    return ":Q" if pd.api.types.is_numeric_dtype(figure.points["x"]) and figure.chart.kind != "bars" else ":N"


def _format(figure: Figure) -> Any:
    return ".4~g" if _x_type(figure) == ":Q" else alt.Undefined


def _y_scale(figure: Figure) -> alt.Scale:
    chart = figure.chart
    if chart.y_domain:
        return alt.Scale(type="log" if chart.log_y else "linear", domain=list(chart.y_domain), nice=False)
    if chart.share_y and len(figure.panels) > 1:
        ends = pd.concat([figure.points["low"], figure.points["high"], figure.points["y"]]).dropna()
        if len(ends) and math.isfinite(ends.min()):
            domain = [float(ends.min()), float(ends.max())]
            if chart.kind == "bars" and not chart.log_y:
                domain[0] = min(domain[0], 0.0)
            return alt.Scale(type="log" if chart.log_y else "linear", domain=domain, nice=not chart.log_y)
    if chart.log_y:
        return alt.Scale(type="log", nice=False)
    return alt.Scale(zero=chart.kind == "bars")


def _inline(points: pd.DataFrame) -> alt.InlineData:
    """Put numbers into the page as CSV text: half the size of JSON records."""
    columns = ["x", "y", "low", "high", "count", "color", "dash", "each", "ended_early"]
    parse = {c: "number" for c in ("y", "low", "high", "count", "ended_early")}
    parse |= {c: "string" for c in ("color", "dash", "each")}
    parse["x"] = "number" if pd.api.types.is_numeric_dtype(points["x"]) else "string"
    text = points[columns].to_csv(index=False, float_format="%.5g", lineterminator="\n")
    return alt.InlineData(values=text, format=alt.CsvDataFormat(type="csv", parse=parse))


def _config(ink: str) -> dict[str, Any]:
    axis = {
        "labelColor": ink,
        "titleColor": ink,
        "domainColor": ink,
        "tickColor": ink,
        "gridColor": ink,
        "gridOpacity": 0.1,
        "domainOpacity": 0.4,
        "tickOpacity": 0.4,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelOpacity": 0.85,
    }
    return {
        "font": FONT,
        "background": "transparent" if ink == "currentColor" else "white",
        "view": {"stroke": None},
        "axis": axis,
        "axisX": {"grid": False},
        # The title lies flat above the axis: readable without turning the head, and no width is lost on a phone.
        "axisY": {
            "titleAngle": 0,
            "titleAlign": "left",
            "titleAnchor": "start",
            "titleY": -12,
            "titleX": 0,
            "domain": False,
        },
        "legend": {
            "labelColor": ink,
            "titleColor": ink,
            "labelFontSize": 11,
            "titleFontSize": 11,
            "labelLimit": 400,
            "symbolStrokeWidth": 2,
        },
        "title": {"color": ink, "fontSize": 12, "fontWeight": 600, "anchor": "start"},
    }


def _compact(spec: dict[str, Any]) -> dict[str, Any]:
    """Leave the schema's address out of what lies in the page: nothing there should look like a network address."""
    spec.pop("$schema", None)
    return spec
