"""Leases of runs: who may write for a run, proved by the attempt number that every write carries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, not_, or_, select, update

from decaylab.errors import DecaylabError, unknown
from decaylab.store import schema
from decaylab.store.database import Database, in_parts
from decaylab.store.schema import ENDED, STATUSES

LONGEST_NAME = 64
"""Characters of a worker's name."""

FUTURE_SECONDS = 2.0
"""A heartbeat this far ahead of the database's clock was written before the clock was set back: it proves nothing."""

_RUNS = schema.runs.c


class LeaseLost(DecaylabError):
    """The run is another worker's by now, or has ended: nothing more may be written for it."""


@dataclass(frozen=True)
class Lease:
    """The right to write for one run, until another worker takes the run over.

    Attributes:
        run_id: The run.
        worker: Who holds it.
        attempt: How often the run has been leased, this time included: the fencing token. A number is used once.
    """

    run_id: str
    worker: str
    attempt: int


class Leases:
    """The part of a `Store` that decides who trains which run."""

    _database: Database
    label: str

    def lease(
        self, run_id: str, worker: str, seconds: float = 60, environment: Mapping[str, Any] | None = None
    ) -> Lease | None:
        """Take a run for training, for ``seconds`` that each heartbeat renews; of several workers one wins.

        Args:
            run_id: The run.
            worker: A name that no other worker has, of at most 64 characters.
            seconds: How long the lease holds without a heartbeat.
            environment: What the run starts on; stored with it.

        Returns:
            The lease. A lease that ran out is taken over, and with it ends every right of its holder. ``None`` for
            runs that are done or diverged, and for runs that another worker holds.

        Raises:
            DecaylabError: The store does not know the run, or the name is too long.
        """
        if not 0 < len(worker) <= LONGEST_NAME:
            raise DecaylabError(f"a worker's name has 1 to {LONGEST_NAME} characters, not {len(worker)}")
        now = self._database.now()
        free = or_(_RUNS.status != "running", _RUNS.worker == worker, not_(is_alive(now)))
        values: dict[str, Any] = {
            "status": "running",
            "worker": worker,
            "attempt": _RUNS.attempt + 1,
            "reason": "",
            "heartbeat": now,
            "lease_until": now + seconds,
            "started": func.coalesce(_RUNS.started, now),
            "ended": None,
        }
        if environment is not None:
            values["environment"] = json.dumps(environment)
        where = and_(_RUNS.id == run_id, _RUNS.status.not_in(ENDED), free)
        with self._database.write() as connection:
            won = connection.execute(update(schema.runs).where(where).values(values)).rowcount > 0
            attempt = connection.execute(select(_RUNS.attempt).where(_RUNS.id == run_id)).scalar()
        if attempt is None:
            raise DecaylabError(f"the store {self.label} does not know the run {run_id}; add it first")
        return Lease(run_id, worker, attempt) if won else None

    def heartbeat(self, lease: Lease, *, step: int, total_steps: int, seconds: float = 60) -> bool:
        """Say that the run is alive and how far it is, and renew its lease.

        Returns:
            ``False`` when the lease was lost: stop, and write nothing more.
        """
        now = self._database.now()
        values = {"step": step, "total_steps": total_steps, "heartbeat": now, "lease_until": now + seconds}
        return self._update(is_held(lease), values) > 0

    def holds(self, lease: Lease) -> bool:
        """Whether a lease is still good, whether or not its time has run out."""
        with self._database.read() as connection:
            return connection.execute(select(_RUNS.num).where(is_held(lease))).scalar() is not None

    def describe(self, lease: Lease, more: Mapping[str, Any]) -> bool:
        """Add to what is known of the machine that a run is trained on.

        Returns:
            ``False``, and nothing changed, when the lease was lost.
        """
        with self._database.write() as connection:
            known = connection.execute(select(_RUNS.environment).where(is_held(lease))).scalar()
            if known is None:
                return False
            values = {"environment": json.dumps({**json.loads(known), **more})}
            connection.execute(update(schema.runs).where(is_held(lease)).values(values))
        return True

    def finish(
        self,
        lease: Lease,
        *,
        status: str,
        reason: str = "",
        summary: Mapping[str, Any] | None = None,
        step: int | None = None,
    ) -> bool:
        """End a lease and say how.

        Args:
            lease: The lease.
            status: ``done``, ``diverged``, ``failed``, ``interrupted`` or ``waiting``.
            reason: Why, in one line, where it is not done.
            summary: Final values; kept as they were when not given.
            step: Steps trained, when known.

        Returns:
            ``False``, and nothing changed, when the lease was lost.
        """
        if status not in STATUSES or status == "running":
            raise unknown("status", status, set(STATUSES) - {"running"})
        values: dict[str, Any] = {"status": status, "reason": reason, "worker": None, "lease_until": None, "deaths": 0}
        values["ended"] = self._database.now() if status in (*ENDED, "failed") else None
        if summary is not None:
            values["summary"] = json.dumps(summary)
        if step is not None:
            values["step"] = step
            if status == "done":
                values["total_steps"] = step
        # The checkpoints of an ended run are removed: its end has to outlast the machine.
        return self._update(is_held(lease), values, durable=status in ENDED) > 0

    def died(self, lease: Lease, how: str, *, attempts: int, counts: bool = True) -> bool:
        """End the lease of a worker that died; the run waits again, or has failed when that happened too often.

        Deaths are counted since the run last got a checkpoint further, or was asked for again.

        Args:
            lease: The lease of the dead worker.
            how: How it died, for the reason.
            attempts: So many deaths without a new checkpoint between them are too many.
            counts: Whether this death counts: not where the worker had several runs, any of which may be to blame.

        Returns:
            Whether the run has failed by this.
        """
        with self._database.write() as connection:
            deaths = connection.execute(select(_RUNS.deaths).where(is_held(lease))).scalar()
            if deaths is None:
                return False
            deaths += counts
            values: dict[str, Any] = {"status": "waiting", "deaths": deaths, "worker": None, "lease_until": None}
            if deaths >= attempts:
                reason = f"its worker process died {deaths} time{'s, the last time' if deaths > 1 else ','} {how}"
                values |= {"status": "failed", "deaths": 0, "reason": reason, "ended": self._database.now()}
            connection.execute(update(schema.runs).where(is_held(lease)).values(values))
        return bool(deaths >= attempts)

    def release(self, run_id: str) -> bool:
        """Take a run from whoever holds it, dead or alive, so that it can be leased at once.

        Returns:
            Whether anybody held it.
        """
        values: dict[str, Any] = {"status": "waiting", "worker": None, "lease_until": None}
        return self._update(and_(_RUNS.id == run_id, _RUNS.status == "running"), values) > 0

    def held_by(self, worker: str) -> list[Lease]:
        """Return the leases that a worker holds."""
        query = select(_RUNS.id, _RUNS.attempt).where(_RUNS.worker == worker, _RUNS.status == "running")
        with self._database.read() as connection:
            return [Lease(run_id, worker, attempt) for run_id, attempt in connection.execute(query)]

    def retry(self, run_ids: Sequence[str]) -> None:
        """Let failed runs be trained again: they go back to waiting."""
        for part in in_parts(run_ids):
            values = {"status": "waiting", "reason": "", "ended": None, "deaths": 0}
            self._update(and_(_RUNS.id.in_(part), _RUNS.status == "failed"), values)

    def give_up(self, run_id: str, reason: str) -> bool:
        """Mark a run failed that nobody trains, because it cannot be (what it needs has failed)."""
        values = {"status": "failed", "reason": reason, "ended": self._database.now()}
        return self._update(and_(_RUNS.id == run_id, _RUNS.status.in_(("waiting", "interrupted"))), values) > 0

    def _update(self, where: Any, values: Mapping[str, Any], *, durable: bool = False) -> int:
        with self._database.write(durable=durable) as connection:
            return connection.execute(update(schema.runs).where(where).values(values)).rowcount


def is_alive(now: ColumnElement[float]) -> ColumnElement[bool]:
    """Return the SQL condition that a run is being trained: its lease holds, by the clock that wrote it."""
    alive = and_(_RUNS.status == "running", _RUNS.lease_until > now, _RUNS.heartbeat <= now + FUTURE_SECONDS)
    return case((alive, True), else_=False)  # never NULL


def is_held(lease: Lease) -> ColumnElement[bool]:
    """Return the SQL condition that a lease has not been taken over, given back or ended."""
    return and_(
        _RUNS.id == lease.run_id,
        _RUNS.status == "running",
        _RUNS.worker == lease.worker,
        _RUNS.attempt == lease.attempt,
    )


def require_held(connection: Connection, database: Database, lease: Lease) -> None:
    """Check a lease inside a write transaction: it stays good until the transaction ends.

    Raises:
        LeaseLost: The run was taken over, released, or has ended.
    """
    query = select(_RUNS.status, _RUNS.worker, _RUNS.attempt).where(_RUNS.id == lease.run_id)
    if database.path is None:
        query = query.with_for_update()  # nobody takes the run over between this look and the commit
    found = connection.execute(query).first()
    if found is None or found.status in ENDED:
        raise LeaseLost(f"run {lease.run_id} has ended: nothing more is written for it")
    if (found.status, found.worker, found.attempt) != ("running", lease.worker, lease.attempt):
        raise LeaseLost(f"run {lease.run_id} was taken over by another worker")
