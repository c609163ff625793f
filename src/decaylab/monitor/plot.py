"""Chart of a log: norm, effective learning rate, rotation against its prediction, share of decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from decaylab.errors import DecaylabError, unknown
from decaylab.params.role import ROLES, UNKNOWN

_PANELS = (
    ("weights/norm", "weight norm"),
    ("effective_lr", "effective LR"),
    ("update/angular", "radians per step"),
    ("update/decay_share", "share of update that is decay"),
)
_DASHED = {"update/angular": "update/angular_predicted"}
_LINES = ["measured", "in equilibrium"]
_STROKES = [[1, 0], [5, 3]]  # measured solid, predicted dashed
_POINTS = 500  # a chart need not hold more than it has pixels


class LogChart(alt.VConcatChart):
    """The panels of a log; a saved page holds all that it needs, so that it opens without a network."""

    def save(self, fp: Any, format: Any = None, **options: Any) -> None:  # type: ignore[override]
        """Write the chart, see `altair.Chart.save`; with ``inline=False`` a page is small and needs a network."""
        page = format == "html" or (format is None and str(fp).endswith((".html", ".htm")))
        super().save(fp, format, **({"inline": True} | options if page else options))


def chart(table: pd.DataFrame, keys: Sequence[str] | None = None) -> LogChart:
    """Draw a table of records against the step, one panel a key, one line a role.

    Args:
        table: ``Log.table()``.
        keys: Keys to draw; None draws the main ones that were recorded, the predicted rotation dashed.

    Returns:
        The panels, one above the other.

    Raises:
        DecaylabError: Nothing was recorded, or a key was not.
    """
    if table.empty:
        raise DecaylabError("nothing is recorded yet: there is nothing to draw")
    if keys is None:
        panels = [(key, title) for key, title in _PANELS if key in table]
    else:
        for key in keys:
            if key not in table:
                raise unknown("key", key, [str(c) for c in table.columns if c != "step"])
        panels = [(key, key) for key in keys]
    thin = table.iloc[:: -(-len(table) // _POINTS)]
    return LogChart(vconcat=[_panel(thin, key, title, by_role=keys is None) for key, title in panels])


def _panel(table: pd.DataFrame, key: str, title: str, by_role: bool) -> alt.Chart:
    parts = [_lines(table, key, "measured", by_role)]
    if by_role and key in _DASHED:
        parts.append(_lines(table, _DASHED[key], "in equilibrium", by_role))
    data = pd.concat(parts)
    encoding = {
        "x": alt.X("step:Q", title="step"),
        "y": alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
        "tooltip": ["step:Q", "value:Q", "role:N"],
    }
    if by_role:
        encoding["color"] = alt.Color("role:N", title="role")
        encoding["strokeDash"] = alt.StrokeDash("line:N", title=None, scale=alt.Scale(domain=_LINES, range=_STROKES))
    panel: alt.Chart = alt.Chart(data).mark_line().encode(**encoding).properties(width=420, height=130)
    return panel


def _lines(table: pd.DataFrame, key: str, line: str, by_role: bool) -> pd.DataFrame:
    columns = [str(c) for c in table.columns if c == key or (by_role and _is_role_of(str(c), key))]
    wide = table[["step", *columns]].rename(columns={c: c.removeprefix(f"{key}/") for c in columns if c != key})
    long = wide.rename(columns={key: "all"}).melt("step", var_name="role", value_name="value")
    return long.assign(line=line).dropna(subset=["value"])


def _is_role_of(column: str, key: str) -> bool:
    return column.startswith(f"{key}/") and column.removeprefix(f"{key}/") in (*ROLES, UNKNOWN)
