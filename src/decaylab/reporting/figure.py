"""What does the drawing of a chart need to know: its declaration, its numbers, its colours and its marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from decaylab.experiments.spec import Chart


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart with its numbers.

    Attributes:
        chart: The declaration.
        points: What ``aggregate.drawn`` gave.
        colours: Legend entry to colour.
        rules: Vertical marks: (x, text).
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

    @property
    def numeric_x(self) -> bool:
        """Whether the horizontal axis has numbers, not names."""
        return pd.api.types.is_numeric_dtype(self.points["x"]) and self.chart.kind != "bars"
