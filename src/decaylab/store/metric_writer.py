"""Metrics on their way into the store: buffered, written in batches, and only while the writer holds the run."""

from __future__ import annotations

import operator
import time
from collections.abc import Mapping, Sequence
from typing import SupportsFloat

from sqlalchemy import Connection, select

from decaylab.errors import DecaylabError
from decaylab.store import schema
from decaylab.store.database import Database, StoreUnreachable
from decaylab.store.leases import Lease, LeaseLost, require_held
from decaylab.store.schema import ENDED

RETRY_SECONDS = 10.0
"""Pause of a writer after a store that did not answer."""

_SQLITE = f"INSERT OR REPLACE INTO {schema.metrics.name} (run, key, step, value) VALUES (%d, ?, ?, ?)"
_POSTGRESQL = (
    f"INSERT INTO {schema.metrics.name} (run, key, step, value) "
    "SELECT %s, * FROM unnest(%s::int[], %s::bigint[], %s::float8[]) "
    "ON CONFLICT (run, key, step) DO UPDATE SET value = excluded.value"
)
Point = tuple[int, int, float]
"""A metric's number, a step, a value."""


class KeyTable:
    """The numbers of metric names, interned in the database and remembered here."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._numbers: dict[str, int] = {}

    def numbers(self, names: set[str]) -> dict[str, int]:
        """Return the number of every name, entering the new ones.

        Raises:
            DecaylabError: A name is empty, longer than 300 characters or contains spaces.
        """
        missing = sorted(names - self._numbers.keys())  # sorted: two processes that add the same names cannot deadlock
        if missing:
            for name in missing:
                if not name or len(name) > 300 or not name.isprintable() or " " in name:
                    raise DecaylabError(f"{name!r} cannot name a metric: use a path such as train/loss")
            with self._database.write() as connection:
                entry = self._database.insert_missing(schema.keys)
                connection.execute(entry, [{"name": name} for name in missing])
                found = select(schema.keys.c.name, schema.keys.c.num).where(schema.keys.c.name.in_(missing))
                self._numbers.update({name: num for name, num in connection.execute(found)})
        return self._numbers


class MetricWriter:
    """Takes one mapping a record, keeps the points in memory, and writes them in batches.

    A point is safe from the death of this process once it is flushed: when ``batch`` points or ``seconds`` have
    gathered, at `flush`, and at the end of the ``with`` block. Not thread-safe: one writer belongs to one thread.
    """

    def __init__(
        self,
        database: Database,
        keys: KeyTable,
        run: int,
        *,
        run_id: str,
        lease: Lease | None = None,
        batch: int = 5000,
        seconds: float = 1.0,
    ) -> None:
        """Prepare to write for one run.

        Args:
            database: Where to.
            keys: The interned metric names of that database.
            run: The run's number in the database.
            run_id: The run's id, for messages.
            lease: The right to write. Without one, the run must not have ended.
            batch: Number of points after which they are written.
            seconds: Age of the oldest point, in seconds, after which a record writes them all.
        """
        self._database, self._keys, self._run, self._run_id, self._lease = database, keys, run, run_id, lease
        self._batch, self._seconds = batch, seconds
        # A mapping from (name, step), so that the later of two equal points replaces the earlier one here already.
        self._buffer: dict[tuple[str, int], float] = {}
        self._oldest = 0.0
        self._not_before = 0.0

    def record(self, mapping: Mapping[str, SupportsFloat]) -> None:
        """Take the values of one step: ``{"step": 40, "train/loss": 0.31, ...}``; nan and inf are values too.

        Raises:
            DecaylabError: There is no step, or a value is not a number.
            LeaseLost: The lease was lost (seen when the buffer is written).

        A store that does not answer just now is no error here: the points wait for the next record or `flush`.
        """
        buffer = self._buffer
        if not buffer:
            self._oldest = time.monotonic()
        try:
            step = operator.index(mapping["step"])  # type: ignore[arg-type]
            for name, value in mapping.items():
                if name != "step":
                    buffer[name, step] = float(value)
        except KeyError:
            raise DecaylabError(f"a record needs its step; it had {', '.join(mapping) or 'nothing'}") from None
        except (TypeError, ValueError) as error:
            raise DecaylabError(f"a record takes whole steps and numbers, not {dict(mapping)!r}") from error
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Write the points if there are enough or the oldest has waited long enough, and the store answers."""
        now = time.monotonic()
        due = len(self._buffer) >= self._batch or (self._buffer and now - self._oldest >= self._seconds)
        if not due or now < self._not_before:
            return
        try:
            self.flush()
        except StoreUnreachable:
            self._not_before = time.monotonic() + RETRY_SECONDS

    def flush(self) -> None:
        """Write every buffered point now, in one transaction; on an error they stay in the buffer.

        Raises:
            LeaseLost: The run is another worker's by now, or has ended.
        """
        points = self.points()
        if points:
            with self._database.write() as connection:
                self._require_right(connection)
                self.insert(connection, points)
            self.forget()

    def points(self) -> list[Point]:
        """Return the buffered points in the order in which a database takes them best."""
        if not self._buffer:
            return []
        numbers = self._keys.numbers({name for name, _ in self._buffer})
        return sorted((numbers[name], step, value) for (name, step), value in self._buffer.items())

    def insert(self, connection: Connection, points: Sequence[Point]) -> None:
        """Write points inside a transaction that has checked the right to."""
        if not points:
            return
        if self._database.path is not None:
            connection.exec_driver_sql(_SQLITE % self._run, list(points))
        else:
            columns = tuple(list(column) for column in zip(*points, strict=True))
            connection.exec_driver_sql(_POSTGRESQL, (self._run, *columns))

    def forget(self) -> None:
        """Empty the buffer: its points are in the store."""
        self._buffer.clear()

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def _require_right(self, connection: Connection) -> None:
        if self._lease is not None:
            require_held(connection, self._database, self._lease)
            return
        status = connection.execute(select(schema.runs.c.status).where(schema.runs.c.num == self._run)).scalar()
        if status in ENDED:
            raise LeaseLost(f"run {self._run_id} has ended: nothing more is written for it")
