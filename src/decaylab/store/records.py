"""What the store says of one run: everything, or only how it stands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Row

from decaylab.errors import DecaylabError
from decaylab.store.schema import ENDED


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run as the store knows it. Times are seconds since 1970 by the database's clock, ``None`` before they come.

    Attributes:
        id: Hash of the config.
        kind: ``vision`` or ``language``.
        config: The frozen config as plain data.
        status: One of `decaylab.store.schema.STATUSES`.
        reason: Why it failed, diverged or was interrupted; empty otherwise.
        step: Steps trained so far.
        total_steps: Steps it will have.
        worker: Who holds the lease, empty when nobody does.
        alive: Whether the lease still holds: a running run that is not alive will be taken over.
        heartbeat: Last sign of life.
        started: First lease.
        ended: When it was done, diverged or failed.
        environment: Versions and hardware of the last start.
        summary: Final values that training reported.
    """

    id: str
    kind: str
    config: dict[str, Any]
    status: str
    reason: str
    step: int
    total_steps: int
    worker: str
    alive: bool
    heartbeat: float | None
    started: float | None
    ended: float | None
    environment: dict[str, Any]
    summary: dict[str, Any]

    @property
    def is_ended(self) -> bool:
        """Whether the run is never trained again (done, or diverged: a result too)."""
        return self.status in ENDED


COLUMNS = tuple(name for name in RunRow.__dataclass_fields__ if name != "alive")
"""The columns of the table of runs that a `RunRow` is read from; all of them are in stores of every version."""


class State(NamedTuple):
    """How one run stands, without its config: what a launcher looks at again and again."""

    status: str
    alive: bool
    step: int
    total_steps: int
    worker: str
    reason: str

    @property
    def is_ended(self) -> bool:
        """Whether the run is never trained again (done, or diverged: a result too)."""
        return self.status in ENDED


def run_row(row: Row[Any]) -> RunRow:
    """Read a row of the table of runs, with ``alive`` beside it.

    Raises:
        DecaylabError: A cell is damaged.
    """
    values = dict(row._mapping)
    for name in ("config", "environment", "summary"):
        try:
            values[name] = json.loads(values[name])
        except (TypeError, ValueError, RecursionError):
            raise DecaylabError(
                f"the {name} of run {values['id']} is damaged in the store: expected JSON, found "
                f"{str(values[name])[:40]!r}; put a copy of the store in its place, or delete that row"
            ) from None
    values["worker"] = values["worker"] or ""
    values["alive"] = values["status"] == "running" and bool(values["alive"])
    return RunRow(**{name: values[name] for name in RunRow.__dataclass_fields__})
