"""``decaylab release``: runs that a dead or unreachable worker holds, given back to be trained."""

from __future__ import annotations

import time
from typing import Annotated

import tyro

from decaylab.errors import DecaylabError
from decaylab.store.run_ids import whole_id
from decaylab.store.store import Store

_LISTENING_SECONDS = 2.5  # a worker that lives is heard of every second
_LOOK_SECONDS = 0.1


def release(
    runs: Annotated[tuple[str, ...], tyro.conf.Positional], store: str | None = None, force: bool = False
) -> None:
    """Give runs back that a worker holds: the next launch trains them at once, from their last checkpoints.

    Without it a run is taken over when its worker has not been heard of for a minute. The worker that held it can write
    nothing more for it, whatever it does.

    Args:
        runs: Ids, or the first characters of an id.
        store: A path ending in .db or .sqlite, or a postgresql:// URL. Default: runs.db in the platform's data folder.
        force: Take runs also from a worker that is alive, which loses what it trained since its last checkpoint.
    """
    if not runs:
        raise DecaylabError("name at least one run; `decaylab runs` shows them")
    with Store(store, create=False) as database:
        known = [row.id for row in database.rows()]
        for run_id in dict.fromkeys(whole_id(name, known) for name in runs):
            row = database.get(run_id)
            assert row is not None
            if row.status != "running":
                print(f"run {run_id}: {row.status}, nobody holds it")
                continue
            if not force and row.alive and _is_heard_of(database, run_id, row.heartbeat):
                raise DecaylabError(
                    f"run {run_id} is being trained, worker {row.worker} was heard of just now: stop its launch with "
                    "Ctrl-C, which writes a checkpoint, or take it with --force"
                )
            if database.release(run_id):
                print(f"run {run_id}: released at step {row.step}, held by worker {row.worker} before")
            else:
                print(f"run {run_id}: its worker has just given it back")


def _is_heard_of(store: Store, run_id: str, heartbeat: float | None) -> bool:
    """Listen for a further heartbeat, for a little longer than the pause between two."""
    until = time.monotonic() + _LISTENING_SECONDS
    while time.monotonic() < until:
        row = store.get(run_id)
        if row is not None and row.heartbeat != heartbeat:
            return True
        time.sleep(_LOOK_SECONDS)
    return False
