"""Printing of settings compared seed by seed, for ``decaylab sweep`` and ``decaylab compare``."""

from __future__ import annotations

from decaylab.cli.console import console
from decaylab.errors import printable
from decaylab.experiments.paired import PairedTable, with_interval


def print_table(table: PairedTable) -> None:
    """Print the table and the sentence that answers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    unit = table.quantity.unit
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column(Text(printable(table.what or "setting")), overflow="fold")
    made.add_column(Text(f"{table.quantity.name}{f' ({unit})' if unit else ''}"), overflow="fold")
    made.add_column(Text(printable(f"minus {table.baseline}")), overflow="fold")
    made.add_column("")
    made.add_column("seeds", justify="right", no_wrap=True)
    for row in table.rows:
        diverged = f"{row.standing}, {row.diverged} diverged" if row.diverged else row.standing
        difference = "" if row.difference is None else with_interval(row.difference)
        cells = (row.name, with_interval(row.mean), difference, diverged, str(len(row.mean.seeds)))
        made.add_row(*(Text(printable(cell)) for cell in cells))
    console().print(made)
    print(printable(table.sentence))
