"""One run in the hands of a worker: where its metrics go, how it says that it lives, and how it ends."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from decaylab.errors import DecaylabError
from decaylab.files import atomic_write_text
from decaylab.launch.heartbeat import Pulse
from decaylab.store.database import StoreUnreachable
from decaylab.store.metric_writer import LeaseLost
from decaylab.store.store import Store
from decaylab.train.checkpoints import layout as run_folder

_PATIENCE_SECONDS = 600.0
_ERROR = "error.txt"
_Result = TypeVar("_Result")


class Outcome(Protocol):
    """What a training function returns."""

    @property
    def status(self) -> str:
        """``done``, ``diverged`` or ``interrupted``."""

    @property
    def reason(self) -> str:
        """Why, where it is not done."""

    @property
    def steps(self) -> int:
        """Steps done."""

    @property
    def summary(self) -> Mapping[str, float | str]:
        """Final values."""


class Stopping(Protocol):
    """Somebody who may want to stop."""

    stopping: bool


class Attempt:
    """A leased run from its start to its end.

    Args:
        store: The store that holds the run.
        run_id: The run; its lease is the worker's.
        worker: The worker's name.
        lease_seconds: How long the lease holds without a sign of life.
        boss: Makes the run write a checkpoint and stop.

    Attributes:
        config: The run's config as plain data.
        folder: For its checkpoints.
    """

    def __init__(self, store: Store, run_id: str, worker: str, lease_seconds: float, boss: Stopping) -> None:
        self._store, self._run_id, self._worker, self._boss = store, run_id, worker, boss
        row = self._insist(lambda: store.get(run_id))
        assert row is not None  # a lease was won on it
        self.config, self.folder = row.config, store.folder(run_id)
        self._metrics = self._insist(lambda: store.writer(run_id, worker))
        self._started = False
        self._pulse = Pulse(store, run_id, worker, lease_seconds)
        self._pulse.step, self._pulse.total_steps = row.step, row.total_steps
        self._pulse.__enter__()

    def record(self, mapping: Mapping[str, Any]) -> None:
        """Take metrics, what the machine can do, the step from which training goes on, or word of a checkpoint."""
        if "peak_flops" in mapping:
            self._insist(lambda: self._store.describe(self._run_id, self._worker, mapping))
            return
        if not self._started:
            # What an earlier attempt wrote after its checkpoint (or at all, without one) is written again.
            self._started = True
            self._insist(lambda: self._store.truncate(self._run_id, int(mapping.get("resume", -1))))
        if "checkpoint" in mapping:
            # Points up to a checkpoint are never computed again: they have to be safe before it is.
            self._insist(self._metrics.flush)
        elif "resume" not in mapping:
            self._metrics.record(mapping)

    def heartbeat(self, step: int, total_steps: int) -> bool:
        """Say how far the run is; return whether it shall go on.

        Raises:
            LeaseLost: Another worker has taken the run.
        """
        self._pulse.step, self._pulse.total_steps = step, total_steps
        self._metrics.flush_if_due()
        if self._pulse.lost:
            # No checkpoint any more: the folder is theirs.
            raise LeaseLost(f"run {self._run_id} was taken over by another worker")
        return not self._boss.stopping

    def end(self, ended: Outcome | Exception) -> None:
        """Write how the run ended and give its lease back; whatever a run does wrong, the other runs go on.

        What it needed to go on is removed last, when nothing can make it go on any more.
        """
        error = ended if isinstance(ended, Exception) else None
        if error is None:
            try:
                self._insist(self._metrics.flush)
            except LeaseLost as lost:
                error = lost
        self._pulse.__exit__()
        if isinstance(error, LeaseLost):
            return
        if error is None:
            assert not isinstance(ended, Exception)
            how = {"status": ended.status, "reason": ended.reason, "summary": ended.summary, "step": ended.steps}
            if self._finish(**how):
                (self.folder / _ERROR).unlink(missing_ok=True)  # of an earlier attempt
                if ended.status == "done":
                    run_folder.prune(self.folder, keep=0)
            return
        atomic_write_text(self.folder / _ERROR, "".join(traceback.format_exception(error)))
        with suppress(DecaylabError):
            self._metrics.flush()  # what it measured before may tell why
        self._finish(status="failed", reason=traceback.format_exception_only(error)[-1].strip().splitlines()[0])

    def _finish(self, **how: Any) -> bool:
        return self._insist(lambda: self._store.finish(self._run_id, self._worker, **how))

    def _insist(self, action: Callable[[], _Result]) -> _Result:
        return insist(action, self._boss)


def insist(action: Callable[[], _Result], boss: Stopping) -> _Result:
    """Repeat ``action`` while the store does not answer: hours of training are worth minutes of waiting.

    Raises:
        StoreUnreachable: It did not answer for ten minutes, or ``boss`` is stopping.
    """
    until, pause = time.monotonic() + _PATIENCE_SECONDS, 0.5
    while True:
        try:
            return action()
        except StoreUnreachable:
            if boss.stopping or time.monotonic() > until:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 30.0)
