"""``decaylab export``: the metrics of a store as a CSV or parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decaylab.csv_cells import cells
from decaylab.errors import DecaylabError, printable, unknown
from decaylab.experiments.config_tables import differing, text
from decaylab.files import atomic_path
from decaylab.store.run_ids import whole_id
from decaylab.store.store import Store


def export(
    out: Path,
    store: str | None = None,
    runs: tuple[str, ...] = (),
    keys: tuple[str, ...] = (),
    wide: bool = False,
    config: bool = False,
) -> None:
    """Write metrics to a file: one line for each run, step and key, or with --wide one for each run and step.

    Args:
        out: The file; its ending, .csv or .parquet, decides the format.
        store: A path ending in .db or .sqlite, or a postgresql:// URL. Default: runs.db in the platform's data folder.
        runs: Only these runs, in this order: ids, or the first characters of an id. Default: all.
        keys: Only these metrics. Default: all.
        wide: One column for each metric, instead of the columns key and value.
        config: Also a column for each setting in which these runs differ from each other or from the defaults, such as
            decay.weight_decay and seed.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise DecaylabError(f"cannot write {out}: name a file that ends in .csv or .parquet")
    with Store(store, read_only=True) as database:
        rows = {row.id: row for row in database.rows()}
        there = list(rows)
        run_ids = [whole_id(name, there) for name in runs] or None
        known = database.keys()
        for key in keys:
            if key not in known:
                raise unknown("metric", key, known)
        table = database.table(run_ids, keys or None)
    if wide:
        order = {run: i for i, run in enumerate(table["run"].unique())}
        table = table.pivot(index=["run", "step"], columns="key", values="value").reset_index()
        table.columns.name = None
        table = table.sort_values("run", key=lambda column: column.map(order), kind="stable", ignore_index=True)
    if config:
        own = [rows[run] for run in table["run"].unique()]
        place = {row.id: number for number, row in enumerate(own)}
        numbers = table["run"].map(place)
        for path, values in differing([{"kind": row.kind, **row.config} for row in own], defaults=True).items():
            table[path] = numbers.map([_scalar(value) for value in values].__getitem__)
    with atomic_path(out) as temporary:
        if out.suffix == ".csv":
            cells(table).to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    print(f"{printable(str(out))}: {len(table)} rows, {table['run'].nunique()} runs")


def _scalar(value: Any) -> Any:
    """Return a setting as one cell: numbers, texts and truth as they are, lists in words."""
    return text(value) if isinstance(value, list | tuple | dict) else value
