"""Cells of CSV files that neither a spreadsheet nor a terminal takes for something to carry out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decaylab.errors import printable

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: Any) -> Any:
    r"""Return what is written for a value: numbers as they are, text without anything active in it.

    A spreadsheet reads a cell that begins with = + - @ as a formula, even in quotation marks: such text gets an
    apostrophe in front, which spreadsheets do not show. Text that is a number, or several, stays as it is. Control
    characters are written in Python's spelling (``\x1b``), line ends and tabs as they are.

    >>> cell("=1+1"), cell("-0.5"), cell("-0.5 +1"), cell(-0.5), cell("a-b")
    ("'=1+1", '-0.5', '-0.5 +1', -0.5, 'a-b')
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    active = len(value) > 1 and value.startswith(_FORMULA) and not _is_numbers(value)
    return f"'{text}" if active else text


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table for ``to_csv``: its columns' names and the text in it through `cell`."""
    safe = table.rename(columns=cell)
    for position, kind in enumerate(table.dtypes):
        if kind.kind not in "biufcmM":
            safe.isetitem(position, safe.iloc[:, position].map(cell, na_action="ignore").to_numpy())
    return safe


def _is_numbers(text: str) -> bool:
    try:
        return bool([float(part) for part in text.split()])
    except ValueError:
        return False
