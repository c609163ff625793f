"""``decaylab runs``: the runs of a store, how they stand, and their last metrics."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import tyro

from decaylab.errors import unknown
from decaylab.files import data_home
from decaylab.store.records import RunRow
from decaylab.store.store import Store

_USUAL = ("test/error", "val/loss")


def runs(
    store: str | None = None,
    status: tuple[Literal["waiting", "running", "interrupted", "failed", "done", "diverged"], ...] = (),
    metrics: tuple[str, ...] = (),
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """List the runs of a store.

    Args:
        store: A path ending in .db or .sqlite, or a postgresql:// URL. Default: runs.db in the platform's data folder.
        status: Only runs with one of these.
        metrics: Metrics whose last values are shown. Default: the test error or the validation loss; `--json` gives
            all.
        as_json: Print every run with its config, environment and last metrics as JSON.
    """
    if store is None and not (data_home() / "runs.db").exists():
        print("[]" if as_json else f"no runs yet in {data_home() / 'runs.db'}; `decaylab reproduce fig1` makes some")
        return
    with Store(store, create=False) as database:
        rows = [row for row in database.rows() if not status or row.status in status]
        last = database.last([row.id for row in rows])
        label = database.label
    if as_json:
        print(json.dumps([_as_data(row, last.get(row.id, {})) for row in rows], indent=2, allow_nan=False))
        return
    if not rows:
        wanted = f" with status {' or '.join(status)}" if status else ""
        print(f"no runs{wanted} in {label}")
        return
    _print_table(rows, last, metrics)


def _print_table(rows: list[RunRow], last: dict[str, dict[str, float]], metrics: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    known = {name for values in last.values() for name in values}
    for name in metrics:
        if name not in known:
            raise unknown("metric", name, known)
    shown = metrics or [name for name in _USUAL if name in known]
    table = Table(box=None, pad_edge=False)
    for title in ("run", "kind", "status", "step"):
        table.add_column(title, no_wrap=True)
    for title in shown:
        table.add_column(title, justify="right")
    table.add_column("ended", no_wrap=True)
    table.add_column("why", overflow="fold")
    for row in rows:
        values = last.get(row.id, {})
        table.add_row(
            row.id,
            row.kind,
            _standing(row),
            f"{row.step}/{row.total_steps}" if row.total_steps and not row.is_ended else str(row.step),
            *(f"{values[name]:.4g}" if name in values else "" for name in shown),
            "" if row.ended is None else datetime.fromtimestamp(row.ended).strftime("%Y-%m-%d %H:%M"),
            Text(row.reason),
        )
    # In a pipe there is no width to fit: no line is folded, so that grep and awk see one run a line.
    Console(highlight=False, width=None if sys.stdout.isatty() else 400).print(table)


def _standing(row: RunRow) -> str:
    """Return the status; a running run whose worker has fallen silent is the next launch's to take over."""
    return "abandoned" if row.status == "running" and not row.alive else row.status


def _as_data(row: RunRow, last: dict[str, float]) -> dict[str, Any]:
    times = {name: getattr(row, name) for name in ("started", "heartbeat", "ended")}
    return {
        "id": row.id,
        "kind": row.kind,
        "status": _standing(row),
        "reason": row.reason,
        "step": row.step,
        "total_steps": row.total_steps,
        **{name: None if t is None else datetime.fromtimestamp(t, UTC).isoformat() for name, t in times.items()},
        "last": _finite(last),
        "summary": _finite(row.summary),
        "config": row.config,
        "environment": row.environment,
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Replace nan and infinities, which JSON does not have, by null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
