"""How a worker keeps its lease while it trains, evaluates or prepares data."""

from __future__ import annotations

import threading

from decaylab.store.database import StoreUnreachable
from decaylab.store.store import Store


class Pulse:
    """A thread that renews the lease of one run and reports its step, inside a ``with`` block.

    A thread, because a long evaluation or the first preparation of a data set calls nobody for minutes, and the run
    must not be taken away meanwhile. When the process dies, the thread dies with it and the lease runs out.

    Attributes:
        step: Steps done, to be set by the training thread.
        total_steps: Steps in all, likewise.
        lost: Whether another worker has taken the run.
    """

    def __init__(self, store: Store, run_id: str, worker: str, seconds: float) -> None:
        self._store, self._run_id, self._worker, self._seconds = store, run_id, worker, seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"pulse of {run_id}", daemon=True)
        self.step, self.total_steps, self.lost = 0, 0, False

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._end.wait(min(1.0, self._seconds / 4)):
            try:
                held = self._store.heartbeat(
                    self._run_id, self._worker, step=self.step, total_steps=self.total_steps, seconds=self._seconds
                )
            except StoreUnreachable:
                continue  # nobody else reaches the store either, so nobody takes the run: go on and ask again
            if not held:
                self.lost = True
                return
