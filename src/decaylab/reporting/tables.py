"""How a declared table looks: its cells as text for the page, and all of its columns as CSV."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from decaylab.csv_cells import cells
from decaylab.experiments.spec import Table
from decaylab.reporting import numbers

# A browser drops control characters, or takes them for errors; tabs and line ends are drawn as what they are.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What stands in one place of a table.

    Attributes:
        text: As it is shown.
        kind: ``number``, ``words`` or ``literal`` (its spaces and line ends matter).
    """

    text: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table with its rows.

    Attributes:
        table: The declaration.
        data: What the declaration's function gave.
    """

    table: Table
    data: pd.DataFrame

    @property
    def rows(self) -> list[list[Cell]]:
        """The cells of the shown columns, row by row."""
        return [[self._cell(row, name) for name in self.table.columns] for row in self.data.to_dict("records")]

    def csv(self) -> str:
        """Return every column, in full."""
        return str(cells(self.data).to_csv(index=False, float_format="%.8g", lineterminator="\n"))

    def _cell(self, row: Mapping[Any, Any], name: str) -> Cell:
        value = row[name]
        if name in self.table.literal:
            return Cell(text=str(value).translate(_PICTURES), kind="literal")
        if not isinstance(value, int | float):
            return Cell(text=str(value), kind="words")
        low, high = (float(row.get(f"{name}_{end}", math.nan)) for end in ("low", "high"))
        if math.isnan(low) or math.isnan(high):
            return Cell(text=numbers.plain(value, 6), kind="number")
        return Cell(text=numbers.bounded(value, low, high), kind="number")
