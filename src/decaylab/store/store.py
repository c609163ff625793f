"""Which runs there are, who trains them, how far they are, and where their metrics and files lie."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, func, or_, select, update

from decaylab.errors import DecaylabError, unknown
from decaylab.store import schema
from decaylab.store.database import Database, in_parts
from decaylab.store.metric_writer import KeyTable, MetricWriter
from decaylab.store.records import RunRow, State, run_row
from decaylab.store.schema import ENDED, STATUSES

if TYPE_CHECKING:
    import pandas

_RUNS = schema.runs.c


class Store:
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
        """Enter a run as waiting; a run that is there already stays as it is."""
        row = {"id": run_id, "kind": kind, "config": json.dumps(config, sort_keys=True), "status": "waiting"}
        with self._database.write() as connection:
            entry = self._database.insert_missing(schema.runs)
            connection.execute(entry.values(**row, created=self._database.now()))

    def get(self, run_id: str) -> RunRow | None:
        """Return one run, ``None`` when the store does not know it."""
        return next(iter(self.rows([run_id])), None)

    def rows(self, run_ids: Sequence[str] | None = None) -> list[RunRow]:
        """Return the runs asked for, in that order (unknown ids are left out), or all in the order of adding."""
        alive = (_RUNS.lease_until > self._database.now()).label("alive")
        query = select(schema.runs, alive).order_by(_RUNS.num)
        with self._database.read() as connection:
            if run_ids is None:
                return [run_row(row) for row in connection.execute(query)]
            found = {}
            for part in in_parts(run_ids):
                found.update({row.id: run_row(row) for row in connection.execute(query.where(_RUNS.id.in_(part)))})
        return [found[run_id] for run_id in dict.fromkeys(run_ids) if run_id in found]

    def states(self, run_ids: Sequence[str]) -> dict[str, State]:
        """Return how the runs stand; unknown ids are left out."""
        alive = and_(_RUNS.status == "running", _RUNS.lease_until > self._database.now())
        query = select(_RUNS.id, _RUNS.status, alive, _RUNS.step, _RUNS.total_steps, _RUNS.worker, _RUNS.reason)
        found = {}
        with self._database.read() as connection:
            for part in in_parts(run_ids):
                for run_id, status, live, step, total, worker, reason in connection.execute(
                    query.where(_RUNS.id.in_(part))
                ):
                    found[run_id] = State(status, bool(live), step, total, worker or "", reason)
        return found

    def lease(
        self, run_id: str, worker: str, seconds: float = 60, environment: Mapping[str, Any] | None = None
    ) -> bool:
        """Take a run for training, for ``seconds`` that each heartbeat renews. One UPDATE, so only one worker wins.

        Args:
            run_id: The run.
            worker: A name that no other worker has.
            seconds: How long the lease holds without a heartbeat.
            environment: What the run starts on; stored with it.

        Returns:
            Whether the run is now this worker's. A lease that ran out is taken over; done and diverged runs, and runs
            that another worker holds, are refused.

        Raises:
            DecaylabError: The store does not know the run.
        """
        now = self._database.now()
        free = or_(_RUNS.status != "running", _RUNS.worker == worker, _RUNS.lease_until <= now)
        values: dict[str, Any] = {
            "status": "running",
            "worker": worker,
            "reason": "",
            "heartbeat": now,
            "lease_until": now + seconds,
            "started": func.coalesce(_RUNS.started, now),
            "ended": None,
        }
        if environment is not None:
            values["environment"] = json.dumps(environment)
        won = self._update(and_(_RUNS.id == run_id, _RUNS.status.not_in(ENDED), free), values)
        if not won and self.get(run_id) is None:
            raise DecaylabError(f"the store {self.label} does not know the run {run_id}; add it first")
        return won > 0

    def heartbeat(self, run_id: str, worker: str, *, step: int, total_steps: int, seconds: float = 60) -> bool:
        """Say that the run is alive and how far it is, and renew its lease.

        Returns:
            ``False`` when the lease was lost: stop, and write nothing more.
        """
        now = self._database.now()
        values = {"step": step, "total_steps": total_steps, "heartbeat": now, "lease_until": now + seconds}
        return self._update(_held(run_id, worker), values) > 0

    def describe(self, run_id: str, worker: str, more: Mapping[str, Any]) -> bool:
        """Add to what is known of the machine that a run is trained on.

        Returns:
            ``False``, and nothing changed, when the lease was lost.
        """
        row = self.get(run_id)
        known = {} if row is None else row.environment
        return self._update(_held(run_id, worker), {"environment": json.dumps({**known, **more})}) > 0

    def peak_flops(self, run_id: str) -> float:
        """Return what the machine that a run is trained on was measured to do, operations a second; 0 if it was not."""
        row = self.get(run_id)
        return 0.0 if row is None else float(row.environment.get("peak_flops", 0.0))

    def finish(
        self,
        run_id: str,
        worker: str,
        *,
        status: str,
        reason: str = "",
        summary: Mapping[str, Any] | None = None,
        step: int | None = None,
    ) -> bool:
        """End a lease and say how.

        Args:
            run_id: The run.
            worker: The holder of the lease.
            status: ``done``, ``diverged``, ``failed``, ``interrupted`` or ``waiting``.
            reason: Why, in one line, where it is not done.
            summary: Final values; kept as they were when not given.
            step: Steps trained, when known.

        Returns:
            ``False``, and nothing changed, when the lease was lost.
        """
        if status not in STATUSES or status == "running":
            raise unknown("status", status, set(STATUSES) - {"running"})
        values: dict[str, Any] = {"status": status, "reason": reason, "worker": None, "lease_until": None}
        values["ended"] = self._database.now() if status in (*ENDED, "failed") else None
        if summary is not None:
            values["summary"] = json.dumps(summary)
        if step is not None:
            values["step"] = step
            if status == "done":
                values["total_steps"] = step
        return self._update(_held(run_id, worker), values) > 0

    def retry(self, run_ids: Sequence[str]) -> None:
        """Let failed runs be trained again: they go back to waiting."""
        for part in in_parts(run_ids):
            values = {"status": "waiting", "reason": "", "ended": None}
            self._update(and_(_RUNS.id.in_(part), _RUNS.status == "failed"), values)

    def give_up(self, run_id: str, reason: str) -> bool:
        """Mark a run failed that nobody trains, because it cannot be (what it needs has failed)."""
        values = {"status": "failed", "reason": reason, "ended": self._database.now()}
        return self._update(and_(_RUNS.id == run_id, _RUNS.status.in_(("waiting", "interrupted"))), values) > 0

    def held_by(self, worker: str) -> list[str]:
        """Return the ids of the runs whose lease a worker holds."""
        with self._database.read() as connection:
            return list(connection.execute(select(_RUNS.id).where(_RUNS.worker == worker)).scalars())

    def writer(
        self, run_id: str, worker: str | None = None, *, batch: int = 5000, seconds: float = 1.0
    ) -> MetricWriter:
        """Return a buffered writer for a run's metrics; use it in a ``with`` block.

        Args:
            run_id: The run.
            worker: The holder of the lease. When given, writing after the lease was lost raises `LeaseLost`.
            batch: Number of points after which they are written.
            seconds: Age in seconds after which they are written.

        Raises:
            DecaylabError: The store does not know the run.
        """
        number = self._number(run_id)
        return MetricWriter(
            self._database, self._keys, number, run_id=run_id, worker=worker, batch=batch, seconds=seconds
        )

    def truncate(self, run_id: str, after_step: int) -> None:
        """Remove a run's metrics with a step greater than ``after_step``: a resumed run writes them again."""
        number, metrics = self._number(run_id), schema.metrics.c
        # Naming the keys makes this one seek a curve instead of a walk through the whole run.
        every_key = metrics.key.in_(select(schema.keys.c.num))
        with self._database.write() as connection:
            connection.execute(
                delete(schema.metrics).where(metrics.run == number, every_key, metrics.step > after_step)
            )

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

    def _update(self, where: Any, values: Mapping[str, Any]) -> int:
        with self._database.write() as connection:
            return connection.execute(update(schema.runs).where(where).values(values)).rowcount

    def _number(self, run_id: str) -> int:
        with self._database.read() as connection:
            number = connection.execute(select(_RUNS.num).where(_RUNS.id == run_id)).scalar()
        if number is None:
            raise DecaylabError(f"the store {self.label} does not know the run {run_id}; add it first")
        return int(number)


def _held(run_id: str, worker: str) -> Any:
    return and_(_RUNS.id == run_id, _RUNS.status == "running", _RUNS.worker == worker)
