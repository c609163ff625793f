"""Checkpoints that the store vouches for: which were written by whom, and which metrics each of them relies on."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, delete, func, select, update

from decaylab.store import schema
from decaylab.store.database import Database
from decaylab.store.leases import Lease, is_held, require_held
from decaylab.store.metric_writer import MetricWriter

_METRICS, _CHECKPOINTS = schema.metrics.c, schema.checkpoints.c


@dataclass(frozen=True)
class Coverage:
    """The metrics that a checkpoint relies on, because nobody will compute them again.

    Attributes:
        attempt: The attempt that wrote them.
        last_step: The last step with a metric; -1 without any.
        points: How many points there are up to that step.
    """

    attempt: int = 0
    last_step: int = -1
    points: int = 0


class CheckpointLedger:
    """What the store knows of one run's checkpoints, for the holder of its lease.

    A checkpoint counts when its record is in the database: the record is committed after the metrics that the
    checkpoint relies on and right before its folder gets its name, and both outlast the death of the machine. What a
    database loses it loses from the end, so where the metrics are lost the record is lost too.

    Args:
        database: The database.
        number: The run's number in it.
        lease: The lease; every write checks it in the same transaction.
        writer: Holds the metrics that are not written yet.

    Attributes:
        covered: The metrics that outlast the death of the machine.
    """

    def __init__(self, database: Database, number: int, lease: Lease, writer: MetricWriter) -> None:
        self._database, self._number, self._lease, self._writer = database, number, lease, writer
        self.covered = Coverage(lease.attempt)

    def begin(self, step: int) -> None:
        """Remove metrics and records of checkpoints after ``step``: training goes on there and writes them again.

        Raises:
            LeaseLost: The run is not this worker's any more.
        """
        # Naming the keys makes this one seek a curve instead of a walk through the whole run.
        every_key = _METRICS.key.in_(select(schema.keys.c.num))
        own = and_(_METRICS.run == self._number, every_key)
        with self._database.write() as connection:
            require_held(connection, self._database, self._lease)
            connection.execute(delete(schema.metrics).where(own, _METRICS.step > step))
            later = and_(_CHECKPOINTS.run == self._number, _CHECKPOINTS.step > step)
            connection.execute(delete(schema.checkpoints).where(later))
            points, last = connection.execute(select(func.count(), func.max(_METRICS.step)).where(own)).one()
        self.covered = Coverage(self._lease.attempt, -1 if last is None else last, points)

    def commit(self, step: int) -> Coverage:
        """Write the metrics that are still in memory, to outlast the death of the machine; count what there is.

        Args:
            step: The step of the checkpoint that is about to be written. A step that no checkpoint reached before is
                progress: deaths of workers count from here.

        Raises:
            LeaseLost: The run is not this worker's any more.
        """
        before = self.covered
        new = and_(
            _METRICS.run == self._number, _METRICS.key.in_(select(schema.keys.c.num)), _METRICS.step > before.last_step
        )
        points = self._writer.points()
        runs = schema.runs.c
        with self._database.write(durable=True) as connection:
            require_held(connection, self._database, self._lease)
            self._writer.insert(connection, points)
            count, last = connection.execute(select(func.count(), func.max(_METRICS.step)).where(new)).one()
            further = and_(is_held(self._lease), runs.saved_step < step)
            connection.execute(update(schema.runs).where(further).values(saved_step=step, deaths=0))
        self._writer.forget()
        if last is not None:
            self.covered = Coverage(self._lease.attempt, last, before.points + count)
        return self.covered

    def confirm(self, step: int, digest: str) -> None:
        """Enter a checkpoint whose files are on disk, right before its folder gets its name.

        Args:
            step: Its step.
            digest: Of its manifest.

        Raises:
            LeaseLost: The run is not this worker's any more.
        """
        row = {"run": self._number, "step": step, "attempt": self._lease.attempt, "digest": digest}
        with self._database.write(durable=True) as connection:
            require_held(connection, self._database, self._lease)
            same = and_(_CHECKPOINTS.run == self._number, _CHECKPOINTS.step == step)
            connection.execute(delete(schema.checkpoints).where(same))
            connection.execute(schema.checkpoints.insert().values(**row))

    def check(self) -> None:
        """Return if the lease is still good.

        Raises:
            LeaseLost: The run is not this worker's any more.
        """
        with self._database.write() as connection:
            require_held(connection, self._database, self._lease)

    def objection(self, step: int, digest: str | None, coverage: Coverage) -> str:
        """Say why training cannot go on from a checkpoint; empty when it can.

        Args:
            step: Its step.
            digest: Of its manifest; ``None`` for a checkpoint of a version that wrote none.
            coverage: The metrics that it relies on.
        """
        with self._database.read() as connection:
            same = and_(_CHECKPOINTS.run == self._number, _CHECKPOINTS.step == step)
            known = connection.execute(select(_CHECKPOINTS.digest).where(same)).scalar()
            if known is None and digest is not None:
                return "is not in the store, which holds the metrics of another attempt"
            if known is not None and digest is None:
                return "has lost its manifest"
            if known != digest:
                return "is not the one that the store knows"
            every_key = _METRICS.key.in_(select(schema.keys.c.num))
            upto = and_(_METRICS.run == self._number, every_key, _METRICS.step <= coverage.last_step)
            points, last = connection.execute(select(func.count(), func.max(_METRICS.step)).where(upto)).one()
        if points < coverage.points or (coverage.last_step >= 0 and last != coverage.last_step):
            there = "no metrics" if last is None else f"metrics up to step {last}"
            return f"relies on metrics up to step {coverage.last_step}, of which the store holds {there}"
        return ""
