"""How a chart looks: one declaration becomes interactive views for the page and one static drawing for a paper."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd
from altair.utils.schemapi import debug_mode

from decaylab.reporting import legend, look
from decaylab.reporting.aggregate import thin
from decaylab.reporting.figure import Figure

_Mark = tuple[Any, float]  # a layer and its opacity
_SHARED = "points"


def page_views(figure: Figure) -> list[dict[str, Any]]:
    """Return one Vega-Lite specification a panel, as wide as the page lets it be, without a legend of its own.

    The page writes the title of the vertical axis above each view, draws the legend, and sets the parameters
    ``pickedColor`` and ``pickedDash`` of all panels at once. Inks are ``currentColor``, so that a view follows a light
    or a dark page.
    """
    specs = []
    for panel, data in _panel_data(figure).items():
        spec = _spec(_view(figure, panel, ink="currentColor", interactive=True)) | {"width": "container", "height": 260}
        del spec["$schema"]  # nothing in the page should look like a network address
        specs.append({**spec, "config": look.config("currentColor"), "data": data})
    return specs


def static_view(figure: Figure, *, title: bool = True) -> dict[str, Any]:
    """Return one Vega-Lite specification of the whole chart, on white: panels side by side with a legend."""
    ink = "#22262b"
    around: dict[str, Any] = {}
    if title:
        around["title"] = {"text": figure.chart.title, "anchor": "start", "fontSize": 14, "offset": 14}
    around |= {"config": look.config(ink), "background": "white", "datasets": {}}
    views = []
    for panel, data in _panel_data(figure).items():
        spec = _spec(_view(figure, panel, ink=ink, interactive=False))
        around["$schema"] = spec.pop("$schema")
        around["datasets"] |= spec.pop("datasets", {})  # only the whole may have them
        del spec["config"]
        views.append({**spec, "data": data})
    if len(views) == 1:
        return {**views[0], **around, "width": 520, "height": 280}
    size = {"width": 300, "height": 220}
    titled = [{**view, **size, "title": panel} for view, panel in zip(views, figure.panels, strict=True)]
    return {**around, "concat": titled, "columns": 3 if len(titled) % 3 == 0 else 2}


def _panel_data(figure: Figure) -> dict[str, dict[str, Any]]:
    points = thin(figure.points, figure.chart)
    panels = {panel: points[points["panel"] == panel] for panel in figure.panels}
    return {panel: _inline(legend.with_marks(own, figure)) for panel, own in panels.items()}


def _inline(points: pd.DataFrame) -> dict[str, Any]:
    """Put numbers into the page as CSV text: half the size of JSON records."""
    parse = {c: "number" for c in ("y", "low", "high", "count", "ended_early", "marked")}
    parse |= {c: "string" for c in ("color", "dash", "each")}
    parse["x"] = "number" if pd.api.types.is_numeric_dtype(points["x"]) else "string"
    text = points[list(parse)].to_csv(index=False, float_format="%.5g", lineterminator="\n")
    return {"values": text, "format": {"type": "csv", "parse": parse}}


def _spec(view: Any) -> dict[str, Any]:
    """Write a view as a specification whose layers take the data of the whole."""
    with debug_mode(False):  # the tests validate these specifications; doing it for every reader costs seconds
        spec: dict[str, Any] = view.to_dict(validate=False)
    for layer in spec["layer"]:
        if layer.get("data") == {"name": _SHARED}:
            del layer["data"]
    return spec


def _view(figure: Figure, panel: str, *, ink: str, interactive: bool) -> Any:
    """The layers of one panel, without its data."""
    kind = figure.chart.kind
    points = figure.points[figure.points["panel"] == panel]
    with debug_mode(False):
        # Every channel is an object of its class: Altair finds the class of a shorthand by trying its schema.
        encoding = look.encoding(figure, panel, interactive=interactive)
        base = alt.Chart(alt.NamedData(_SHARED)).encode(**encoding)
        ends = {"y": look.y(figure, "low", panel, interactive=interactive), "y2": alt.Y2("high:Q")}
        if kind == "line":
            marks = _lines(figure, base, encoding, points, interactive)
            if points["low"].notna().any():
                # An area has no dashes, so its curves are told apart by a channel that draws nothing.
                plain = (
                    {k: v for k, v in encoding.items() if k != "strokeDash"} | ends | {"detail": alt.Detail("dash:N")}
                )
                area = alt.Chart(alt.NamedData(_SHARED)).mark_area(clip=True).encode(**plain)
                marks.insert(0, (area.transform_filter("isValid(datum.low)"), 0.16))
        else:
            # On a bar, what belongs to it is drawn in ink: its own colour would not show.
            plain = {k: v for k, v in encoding.items() if k != "shape"}  # a rule has no shape, nor has a seed
            on_top = alt.Chart(alt.NamedData(_SHARED)).encode(**plain)
            on_top = on_top.encode(color=alt.ColorValue(ink)) if kind == "bars" else on_top
            marks = [(base.mark_bar(), 0.75) if kind == "bars" else (base.mark_point(filled=True, size=60), 1.0)]
            if points["low"].notna().any():
                error = on_top.mark_rule(strokeWidth=1.5).transform_filter("isValid(datum.low)").encode(**ends)
                marks += [(error, 1.0), (_each(on_top), 0.6)]
        layers = [mark.encode(opacity=look.opacity(opacity, interactive=interactive)) for mark, opacity in marks]
        if figure.rules:
            layers.insert(0, _rules(figure, ink))
        if not interactive:
            return alt.layer(*layers)
        picked = [alt.param(name=name, value=[]) for name in ("pickedColor", "pickedDash")]
        return alt.layer(*layers, _tooltips(figure, base)).add_params(*picked)


def _lines(figure: Figure, base: Any, encoding: dict[str, Any], points: pd.DataFrame, interactive: bool) -> list[_Mark]:
    curves = figure.points.groupby(["panel", "color", "dash"]).size()
    clip = figure.chart.y_domain is not None
    marks: list[_Mark] = [(base.mark_line(strokeWidth=1.8, clip=clip), 1.0)]
    marks_curves = legend.marked(figure)
    if marks_curves or curves.max() <= legend.FEW:
        # Without the dashes: with them, their legend would show the points' stroke, which is none.
        plain = {k: v for k, v in encoding.items() if k != "strokeDash"}
        dots = alt.Chart(alt.NamedData(_SHARED)).transform_filter("datum.marked > 0")
        dots = dots.mark_point(filled=True, size=42 if marks_curves else 28, clip=clip)
        marks.append((dots.encode(**plain, **look.shape(figure, interactive), detail=alt.Detail("dash:N")), 1.0))
    if points["ended_early"].any():
        cross = base.transform_filter("datum.ended_early > 0")
        marks.append((cross.mark_point(shape="cross", angle=45, size=90, filled=True), 1.0))
    return marks


def _each(base: Any) -> Any:
    """The seeds themselves, small, beside their mean."""
    split = base.transform_filter("isValid(datum.each)").transform_calculate(seed_values="split(datum.each, ' ')")
    seeds = split.transform_flatten(["seed_values"], as_=["seed_value"])
    return seeds.mark_point(filled=True, size=12, xOffset=9).encode(y=alt.Y("seed_value:Q"))


def _rules(figure: Figure, ink: str) -> Any:
    base = alt.Chart(alt.InlineData(values=[{"x": x, "text": text} for x, text in figure.rules]))
    rule = base.mark_rule(color=ink, strokeDash=[3, 3], opacity=0.55).encode(x=alt.X("x:Q"))
    text = base.mark_text(align="left", baseline="top", dx=4, fontSize=11, color=ink, opacity=0.75)
    return alt.layer(rule, text.encode(x=alt.X("x:Q"), y=alt.value(2), text=alt.Text("text:N")))


def _tooltips(figure: Figure, base: Any) -> Any:
    """The nearest point of the view answers: mean, interval and number of seeds."""
    chart = figure.chart
    fields = [alt.Tooltip("color:N", title=chart.color_title or chart.color)] if chart.color else []
    fields += [alt.Tooltip("dash:N", title=chart.dash_title or chart.dash)] if chart.dash else []
    number = ".4~g" if figure.numeric_x else alt.Undefined
    fields += [
        alt.Tooltip(look.x_field(figure), title=chart.x_title or chart.x, format=number),
        alt.Tooltip("y:Q", title=chart.y_title or "value", format=".4~g"),
    ]
    if (figure.points["count"] > 1).any():
        fields += [alt.Tooltip("interval:N", title="95 % interval"), alt.Tooltip("count:Q", title="seeds")]
    line = chart.kind == "line"
    near = alt.selection_point(on="pointerover", nearest=line, fields=["x", "color", "dash"], empty=False)
    interval = "isValid(datum.low) ? format(datum.low, '.4~g') + ' to ' + format(datum.high, '.4~g') : 'one seed'"
    dot = base.transform_calculate(interval=interval).mark_point(filled=True, size=70 if line else 300, clip=True)
    opacity = alt.OpacityValue(0.001, condition={"param": near.name, "empty": False, "value": 1 if line else 0.15})
    return dot.encode(opacity=opacity, tooltip=fields).add_params(near)
