"""Store of runs and their metrics: what there is, how far it is, and where its files lie."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, and_, func, select, update

from decaylab.errors import DecaylabError
from decaylab.store import schema
from decaylab.store.checkpoint_ledger import CheckpointLedger
from decaylab.store.database import Database, in_parts
from decaylab.store.leases import Lease, Leases, is_alive
from decaylab.store.metric_writer import KeyTable, MetricWriter
from decaylab.store.records import COLUMNS, RunRow, State, run_row

if TYPE_CHECKING:
    import pandas

_RUNS = schema.runs.c


class Store(Leases):
    """The database of runs and metrics; safe to use from many processes at once.

    One object can serve several threads, except for a `MetricWriter`, which belongs to one.
    """

    def __init__(self, url: str | Path | None = None, *, create: bool = True, read_only: bool = False) -> None:
        """Open a store.

        Args:
            url: A path ending in .db, .sqlite or .sqlite3, ``postgresql://user:password@host/database``, or ``None``
                for the one of the environment variable DECAYLAB_STORE, or else ``runs.db`` in decaylab's data folder.
            create: Make a missing SQLite file; otherwise a missing file is an error.
            read_only: Write nothing, for a store on a disk that cannot be written to, too; a missing one is an error.

        Raises:
            DecaylabError: The url means nothing, the file is not a store, the tables are newer than this code, or
                the server does not answer.
        """
        self._database = Database(url, create=create, read_only=read_only)
        self._keys = KeyTable(self._database)
        self.url = self._database.url
        """What another process passes to open the same store (with the password, so not for printing)."""
        self.label = self._database.label
        """The store's name for people, without a password."""

    def add(self, run_id: str, config: Mapping[str, Any], *, kind: str) -> None:
        """Enter a run as waiting; one that is there keeps its state, and while nobody trains it takes the new paths.

        One id has one meaning, but its files may lie elsewhere than when it was entered.
        """
        row = {"id": run_id, "kind": kind, "config": json.dumps(config, sort_keys=True), "status": "waiting"}
        with self._database.write() as connection:
            entry = self._database.insert_missing(schema.runs)
            if connection.execute(entry.values(**row, created=self._database.now())).rowcount == 0:
                elsewhere = and_(
                    _RUNS.id == run_id, _RUNS.status.not_in((*schema.ENDED, "running")), _RUNS.config != row["config"]
                )
                connection.execute(update(schema.runs).where(elsewhere).values(config=row["config"]))

    def get(self, run_id: str) -> RunRow | None:
        """Return one run, ``None`` when the store does not know it."""
        return next(iter(self.rows([run_id])), None)

    def rows(self, run_ids: Sequence[str] | None = None) -> list[RunRow]:
        """Return the runs asked for, in that order (unknown ids are left out), or all in the order of adding."""
        alive = is_alive(self._database.now()).label("alive")
        query: Select[Any] = select(*(_RUNS[name] for name in COLUMNS), alive).order_by(_RUNS.num)
        with self._database.read() as connection:
            if run_ids is None:
                return [run_row(row) for row in connection.execute(query)]
            found = {}
            for part in in_parts(run_ids):
                found.update({row.id: run_row(row) for row in connection.execute(query.where(_RUNS.id.in_(part)))})
        return [found[run_id] for run_id in dict.fromkeys(run_ids) if run_id in found]

    def states(self, run_ids: Sequence[str]) -> dict[str, State]:
        """Return how the runs stand; unknown ids are left out."""
        alive = is_alive(self._database.now())
        query = select(_RUNS.id, _RUNS.status, alive, _RUNS.step, _RUNS.total_steps, _RUNS.worker, _RUNS.reason)
        found = {}
        with self._database.read() as connection:
            for part in in_parts(run_ids):
                for run_id, status, live, step, total, worker, reason in connection.execute(
                    query.where(_RUNS.id.in_(part))
                ):
                    found[run_id] = State(status, bool(live), step, total, worker or "", reason)
        return found

    def peak_flops(self, run_id: str) -> float:
        """Return what the machine that a run is trained on was measured to do, operations a second; 0 if it was not."""
        row = self.get(run_id)
        return 0.0 if row is None else float(row.environment.get("peak_flops", 0.0))

    def writer(self, run: Lease | str, *, batch: int = 5000, seconds: float = 1.0) -> MetricWriter:
        """Return a buffered writer for a run's metrics; use it in a ``with`` block.

        Args:
            run: The lease of the run: writing after it was lost raises `LeaseLost`. Or, where nobody trains it, the id
                of a run that has not ended.
            batch: Number of points after which they are written.
            seconds: Age in seconds after which they are written.

        Raises:
            DecaylabError: The store does not know the run.
        """
        run_id, lease = (run, None) if isinstance(run, str) else (run.run_id, run)
        number = self._number(run_id)
        return MetricWriter(
            self._database, self._keys, number, run_id=run_id, lease=lease, batch=batch, seconds=seconds
        )

    def ledger(self, lease: Lease, writer: MetricWriter) -> CheckpointLedger:
        """Return what vouches for the checkpoints of a leased run, whose metrics ``writer`` takes."""
        return CheckpointLedger(self._database, self._number(lease.run_id), lease, writer)

    def table(self, run_ids: Sequence[str] | None = None, keys: Sequence[str] | None = None) -> pandas.DataFrame:
        """Return metrics as a long table.

        Args:
            run_ids: Runs in the order wanted; all in the order of adding by default.
            keys: Metric names; all by default.

        Returns:
            Columns run (str), step (int), key (str), value (float), ordered by run, then key, then step.
        """
        from decaylab.store import (
            metric_reader as tables,  # numpy and pandas come with it: launchers and workers do without
        )

        return tables.read_curves(self._database, run_ids, keys).frame()

    def last(self, run_ids: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
        """Return each run's last value of every key it has: ``{run: {key: value}}``."""
        from decaylab.store import metric_reader as tables

        found = tables.read_last(self._database, run_ids)
        return {run: {key: value for key, (_, value) in keys.items()} for run, keys in found.items()}

    def keys(self) -> list[str]:
        """Return every metric name in the store, sorted."""
        with self._database.read() as connection:
            return sorted(connection.execute(select(schema.keys.c.name)).scalars())

    def counts(self) -> dict[str, int]:
        """Return the number of runs of each status that occurs."""
        query = select(_RUNS.status, func.count()).group_by(_RUNS.status)
        with self._database.read() as connection:
            return {status: count for status, count in connection.execute(query)}

    def folder(self, run_id: str | None = None) -> Path:
        """Return the folder for one run's checkpoints and snapshots, or the one that holds all of these.

        It lies beside an SQLite store (``runs.db`` has ``runs/``), and in decaylab's data folder for PostgreSQL: set
        ``DECAYLAB_HOME`` to a shared disk where several machines should take over each other's runs.
        """
        return self._database.files if run_id is None else self._database.files / run_id

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _number(self, run_id: str) -> int:
        with self._database.read() as connection:
            number = connection.execute(select(_RUNS.num).where(_RUNS.id == run_id)).scalar()
        if number is None:
            raise DecaylabError(f"the store {self.label} does not know the run {run_id}; add it first")
        return int(number)
