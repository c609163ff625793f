"""What a chart draws: means with intervals over seeds, few enough points to draw, no spike lost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from decaylab.experiments.results import Results
from decaylab.experiments.spec import Chart

CONFIDENCE = 0.95
MAX_POINTS = 400
"""Points of one curve on the page; the CSV beside it has all of them."""


def drawn(chart: Chart, results: Results) -> pd.DataFrame:
    """Compute the table that a chart is drawn from.

    Args:
        chart: The declaration.
        results: Complete or not.

    Returns:
        One row a point, at full resolution: panel, color, dash, x, y, low, high, count (seeds in it), each (the seeds'
        own values, for bars and points), ended_early (whether a run that diverged stops here). Columns that the chart
        does not use hold an empty string. On a logarithmic axis mean and interval are those of the logarithm, so that
        the band cannot reach below zero.
    """
    frame = chart.data(results)
    groups = {"panel": chart.panel, "color": chart.color, "dash": chart.dash}
    table = pd.DataFrame(
        {name: frame[column].map(_text) if column else "" for name, column in groups.items()}, index=frame.index
    )
    table["x"], table["y"] = frame[chart.x], frame[chart.y].astype(float)
    table["over"] = frame[chart.over] if chart.over else range(len(frame))
    table["diverged"] = frame["status"].eq("diverged") if "status" in frame else False
    table["run"] = frame.get("run", "")
    usable = np.isfinite(table["y"]) & (table["y"] > 0 if chart.log_y else True)
    if chart.log_x:
        usable &= table["x"] > 0
    table = table[usable]
    points = _aggregate(table, chart) if chart.over else _as_it_is(table)
    points = points.merge(_ends(table, chart), how="left", on=[*groups, "x"])
    points["ended_early"] = points["ended_early"].fillna(0).astype(int)
    return points


def thin(points: pd.DataFrame, chart: Chart, limit: int = MAX_POINTS) -> pd.DataFrame:
    """Keep at most about ``limit`` points of each curve, with every spike.

    The axis is cut into equal pieces (of the logarithm, on a logarithmic axis); of each piece the points with the
    lowest and the highest value stay, besides the first and the last of the curve and the ends of diverged runs. So the
    drawn curve has the same minimum and maximum in every piece as the whole one.
    """
    if chart.kind != "line" or not pd.api.types.is_numeric_dtype(points["x"]):
        return points
    kept = [_thin_curve(c, limit, chart.log_x) for _, c in points.groupby(["panel", "color", "dash"], sort=False)]
    return pd.concat(kept, ignore_index=True) if kept else points


def _aggregate(table: pd.DataFrame, chart: Chart) -> pd.DataFrame:
    keys = ["panel", "color", "dash", "x"]
    value = np.log(table["y"]) if chart.log_y else table["y"]
    # Several rows of one seed at one place (two metrics under one name, say) count as one: seeds are the sample.
    by_seed = table.assign(y=value).groupby([*keys, "over"], sort=False, dropna=False)["y"].mean().reset_index()
    grouped = by_seed.groupby(keys, sort=False, dropna=False)["y"]
    points = grouped.agg(["mean", "std", "count"]).reset_index()
    count = points["count"].to_numpy(dtype=float)
    half = _half_width(points["std"].to_numpy(dtype=float), count)
    back = np.exp if chart.log_y else np.asarray
    mean = points["mean"].to_numpy(dtype=float)
    points["y"], points["low"], points["high"] = back(mean), back(mean - half), back(mean + half)
    if chart.kind != "line":
        each = by_seed.assign(y=back(by_seed["y"].to_numpy(dtype=float))).groupby(keys, sort=False, dropna=False)["y"]
        points["each"] = each.agg(lambda v: " ".join(f"{x:.6g}" for x in v)).to_numpy()
    else:
        points["each"] = ""
    order = ["panel", "color", "dash"]
    ranks = {name: {v: i for i, v in enumerate(pd.unique(table[name]))} for name in order}
    points = points[[*keys, "y", "low", "high", "count", "each"]]
    if chart.kind == "line":
        points = points.sort_values([*order, "x"], key=lambda c: c.map(ranks[c.name]) if c.name in ranks else c)
    return points.reset_index(drop=True)


def _half_width(std: npt.NDArray[Any], count: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Half the t interval; none for a single seed."""
    several = count > 1
    freedom = np.where(several, count - 1, 1)
    half = stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.nan_to_num(std) / np.sqrt(count)
    return np.where(several, half, np.nan)


def _as_it_is(table: pd.DataFrame) -> pd.DataFrame:
    points = table[["panel", "color", "dash", "x", "y"]].copy()
    return points.assign(low=math.nan, high=math.nan, count=1, each="").reset_index(drop=True)


def _ends(table: pd.DataFrame, chart: Chart) -> pd.DataFrame:
    """Where runs that diverged have their last finite point; how many of them."""
    lost = table[table["diverged"]] if chart.kind == "line" else table[:0]
    last = lost.groupby("run", sort=False).tail(1)
    keys = ["panel", "color", "dash", "x"]
    return last.groupby(keys, sort=False).size().reset_index(name="ended_early")


def _thin_curve(curve: pd.DataFrame, limit: int, log_x: bool) -> pd.DataFrame:
    if len(curve) <= limit:
        return curve
    x = curve["x"].to_numpy(dtype=float)
    place = np.log(x) if log_x else x
    pieces = max(limit // 2 - 2, 1)
    span = place.max() - place.min() or 1.0
    piece = np.minimum(((place - place.min()) / span * pieces).astype(int), pieces - 1)
    values = curve["y"].reset_index(drop=True)
    extremes = values.groupby(piece).agg(["idxmin", "idxmax"]).to_numpy().ravel()
    ends = np.flatnonzero(curve["ended_early"].to_numpy() > 0)
    return curve.iloc[np.unique(np.concatenate([[0, len(curve) - 1], extremes, ends]).astype(int))]


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
