"""Heartbeat of a leased run: it keeps the lease while the worker trains, evaluates or prepares data."""

from __future__ import annotations

import threading

from decaylab.store.leases import Lease
from decaylab.store.store import Store

LONGEST_PAUSE = 1.0
"""Seconds between two heartbeats, or a quarter of a shorter lease."""


class Pulse:
    """A thread that renews the lease of one run and reports its step, inside a ``with`` block.

    A thread, because a long evaluation or the first preparation of a data set calls nobody for minutes, and the run
    must not be taken away meanwhile. When the process dies, the thread dies with it and the lease runs out. Only the
    store's word that the lease is lost ends it before; whatever else goes wrong, it tries again.

    Attributes:
        step: Steps done, to be set by the training thread.
        total_steps: Steps in all, likewise.
        lost: Whether another worker has taken the run.
    """

    def __init__(self, store: Store, lease: Lease, seconds: float) -> None:
        self._store, self._lease, self._seconds = store, lease, seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"pulse of {lease.run_id}", daemon=True)
        self.step, self.total_steps, self.lost = 0, 0, False

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._end.wait(min(LONGEST_PAUSE, self._seconds / 4)):
            try:
                held = self._store.heartbeat(
                    self._lease, step=self.step, total_steps=self.total_steps, seconds=self._seconds
                )
            except (
                Exception
            ):  # server down, disk full, too many open files: passes, or the training thread meets it too
                continue
            if not held:
                self.lost = True
                return
