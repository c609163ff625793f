"""``decaylab runs``: the runs of a store, how they stand, and their last metrics."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import tyro

from decaylab.cli.console import console
from decaylab.cli.json_output import print_json
from decaylab.errors import printable, unknown
from decaylab.experiments.config_tables import differing, text
from decaylab.store import address
from decaylab.store.records import RunRow
from decaylab.store.store import Store

_USUAL = ("test/error", "val/loss")
_SETTINGS = 6  # columns of settings that a terminal has room for
_WIDE = 100  # columns, from which on it has room for the time, too


def runs(
    store: str | None = None,
    status: tuple[Literal["waiting", "running", "interrupted", "failed", "done", "diverged"], ...] = (),
    metrics: tuple[str, ...] = (),
    settings: tuple[str, ...] = (),
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """List the runs of a store.

    Args:
        store: A path ending in .db or .sqlite, or a postgresql:// URL. Default: runs.db in the platform's data folder.
        status: Only runs with one of these.
        metrics: Metrics whose last values are shown. Default: the test error or the validation loss; `--json` gives
            all.
        settings: Settings that are shown, such as optimizer.lr. Default: those in which the runs differ, on a terminal
            the first few of them.
        as_json: Print every run with its config, environment and last metrics as JSON.
    """
    if store is None and not address.exists(None):
        if as_json:
            print_json("runs", {"runs": []})
        else:
            print(f"no runs yet in {printable(address.read().label)}; `decaylab reproduce fig1` makes some")
        return
    with Store(store, read_only=True) as database:
        rows = [row for row in database.rows() if not status or row.status in status]
        last = database.last([row.id for row in rows])
        label = database.label
    if as_json:
        print_json("runs", {"runs": [_as_data(row, last.get(row.id, {})) for row in rows]})
        return
    if not rows:
        wanted = f" with status {' or '.join(status)}" if status else ""
        print(f"no runs{wanted} in {printable(label)}")
        return
    _print_table(rows, last, metrics, settings)


def _print_table(
    rows: list[RunRow], last: dict[str, dict[str, float]], metrics: tuple[str, ...], settings: tuple[str, ...]
) -> None:
    from rich.table import Table
    from rich.text import Text

    known = {name for values in last.values() for name in values}
    for name in metrics:
        if name not in known:
            raise unknown("metric", name, known)
    shown = metrics or [name for name in _USUAL if name in known]
    out = console()
    differ = differing([{"kind": row.kind, **row.config} for row in rows], defaults=bool(settings))
    for name in settings:
        if name not in differ:
            raise unknown("setting that differs between these runs or from its default", name, differ)
    paths = list(settings or differ)
    left_out = [] if settings or not out.is_terminal else paths[_SETTINGS:]
    paths = paths[: len(paths) - len(left_out)]
    last_parts = [path.rsplit(".", 1)[-1] for path in paths]
    table = Table(box=None, pad_edge=False)
    narrow = out.is_terminal and out.width < _WIDE
    for title in ("run", "kind", "status", "step"):
        table.add_column(title, no_wrap=True)
    for path, part in zip(paths, last_parts, strict=True):
        table.add_column(Text(printable(path if last_parts.count(part) > 1 else part)), no_wrap=True)
    for title in shown:
        table.add_column(Text(printable(title)), justify="right", no_wrap=True)
    if not narrow:
        table.add_column("ended", no_wrap=True)
    table.add_column("why", overflow="fold")
    for number, row in enumerate(rows):
        values = last.get(row.id, {})
        table.add_row(
            Text(printable(row.id)),
            Text(printable(row.kind)),
            _standing(row),
            f"{row.step}/{row.total_steps}" if row.total_steps and not row.is_ended else str(row.step),
            *(Text(_setting(differ[path][number])) for path in paths),
            *(f"{values[name]:.4g}" if name in values else "" for name in shown),
            *(() if narrow else (_when(row.ended),)),
            Text(_one_line(row.reason)),
        )
    out.print(table)
    if left_out:
        names = ", ".join(map(printable, left_out))
        print(f"They also differ in {names}: --settings NAME ... shows what you choose, a pipe and --json show all.")


def _when(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _setting(value: Any) -> str:
    return "" if value is None else _one_line(text(value))


def _one_line(said: str) -> str:
    return printable(" ".join(said.split()))


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
        "last": last,
        "summary": row.summary,
        "config": row.config,
        "environment": row.environment,
    }
