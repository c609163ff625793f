"""Leased run of one worker: its metrics, heartbeat, checkpoints' ledger and final status."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from decaylab.errors import DecaylabError
from decaylab.files import atomic_write_text
from decaylab.launch.heartbeat import Pulse
from decaylab.store.checkpoint_ledger import Coverage
from decaylab.store.leases import Lease, LeaseLost
from decaylab.store.patience import insist
from decaylab.store.schema import ENDED
from decaylab.store.store import Store
from decaylab.train.checkpoints import layout
from decaylab.train.checkpoints.manifest import Manifest

ERROR_FILE = "error.txt"
"""Traceback of a run that failed, in its folder."""

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


class StopSignal(Protocol):
    """Somebody who may want to stop."""

    stopping: bool


class RunSession:
    """A leased run from its start to its end; also the ledger of its checkpoints, see `decaylab.train`.

    Every write goes through the lease: after another worker has taken the run over, metrics, checkpoints, and the end
    of the run are refused with `LeaseLost`.

    Args:
        store: The store that holds the run.
        lease: The lease, just won.
        lease_seconds: How long it holds without a sign of life.
        stop_signal: Makes the run write a checkpoint and stop.

    Attributes:
        config: The run's config as plain data.
        folder: For its checkpoints.
    """

    def __init__(self, store: Store, lease: Lease, lease_seconds: float, stop_signal: StopSignal) -> None:
        self._store, self._lease, self._stop_signal = store, lease, stop_signal
        row = self._insist(lambda: store.get(lease.run_id))
        assert row is not None  # a lease was won on it
        self.config, self.folder = row.config, store.folder(lease.run_id)
        self._metrics = self._insist(lambda: store.writer(lease))
        self._ledger = self._insist(lambda: store.ledger(lease, self._metrics))
        self._started = False
        self._pulse = Pulse(store, lease, lease_seconds)
        self._pulse.step, self._pulse.total_steps = row.step, row.total_steps
        self._pulse.__enter__()

    def record(self, mapping: Mapping[str, Any]) -> None:
        """Take metrics, what the machine can do, the step from which training goes on, or word of a checkpoint."""
        if "peak_flops" in mapping:
            self._insist(lambda: self._store.describe(self._lease, mapping))
            return
        if not self._started:
            # What an earlier attempt wrote after its checkpoint (or at all, without one) is written again.
            self._insist(lambda: self._ledger.begin(int(mapping.get("resume", -1))))
            self._started = True
        if "checkpoint" in mapping:
            self.commit(int(mapping["checkpoint"]))
        elif "resume" not in mapping:
            self._metrics.record(mapping)

    def heartbeat(self, step: int, total_steps: int) -> bool:
        """Say how far the run is; return whether it shall go on.

        Raises:
            LeaseLost: Another worker has taken the run.
        """
        self._pulse.step, self._pulse.total_steps = step, total_steps
        if self._pulse.lost:
            self._insist(self._ledger.check)  # which says whether it was taken over or has ended
        self._metrics.flush_if_due()
        return not self._stop_signal.stopping

    def commit(self, step: int) -> Coverage:
        """Make all metrics safe before a checkpoint: points up to it are never computed again."""
        return self._insist(lambda: self._ledger.commit(step))

    def coverage(self) -> Coverage:
        """Return which metrics are safe by now, and the attempt."""
        return self._ledger.covered

    def confirm(self, step: int, digest: str) -> None:
        """Enter a checkpoint whose files are on disk."""
        self._insist(lambda: self._ledger.confirm(step, digest))

    def check(self) -> None:
        """Return if the run is still this worker's."""
        self._insist(self._ledger.check)

    def objection(self, step: int, manifest: Manifest) -> str:
        """Say why training cannot go on from a checkpoint; empty when it can."""
        coverage = Coverage(manifest.attempt, manifest.last_step, manifest.points)
        return self._insist(lambda: self._ledger.objection(step, manifest.digest, coverage))

    def end(self, ended: Outcome | Exception) -> None:
        """Write how the run ended and give its lease back; whatever a run does wrong, the other runs go on.

        What it needed to go on is removed last, when nothing can make it go on any more.
        """
        try:
            if isinstance(ended, Exception):
                self._fail(ended)
                return
            self._insist(self._metrics.flush)
            how = {"status": ended.status, "reason": ended.reason, "summary": ended.summary, "step": ended.steps}
            if self._finish(**how) and ended.status in ENDED:
                (self.folder / ERROR_FILE).unlink(missing_ok=True)  # of an earlier attempt
                if ended.status == "done":
                    layout.prune(self.folder, keep=0)
        except LeaseLost:
            return  # the run and its folder are another worker's
        finally:
            self._pulse.__exit__()

    def _fail(self, error: Exception) -> None:
        self._insist(self._ledger.check)
        with suppress(OSError):  # a full disk may be what went wrong
            atomic_write_text(self.folder / ERROR_FILE, "".join(traceback.format_exception(error)))
        with suppress(DecaylabError):
            self._metrics.flush()  # what it measured before may tell why
        named = traceback.format_exception_only(error)[-1]
        reason = str(error) if isinstance(error, DecaylabError) else named  # whose message says it all
        self._finish(status="failed", reason=reason.strip().splitlines()[0])

    def _finish(self, **how: Any) -> bool:
        return self._insist(lambda: self._store.finish(self._lease, **how))

    def _insist(self, action: Callable[[], _Result]) -> _Result:
        return insist(action, lambda: self._stop_signal.stopping)
