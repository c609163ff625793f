"""A worker process: lease a run, train it, write its metrics, take the next; until nothing is left or it shall stop.

Started by the launcher; by hand or by a cluster's scheduler it is ``python -m decaylab.runs.worker --store URL
--queue FILE``. It stops cleanly, with a checkpoint, on SIGTERM, on Ctrl-C, and (with ``--lifeline``) when its standard
input closes, which happens when the launcher dies.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from decaylab.errors import DecaylabError
from decaylab.files import atomic_write_text
from decaylab.runs import environment
from decaylab.runs.database import StoreUnreachable
from decaylab.runs.pulse import Pulse
from decaylab.runs.queue import Queue
from decaylab.runs.store import Store
from decaylab.runs.writer import LeaseLost

STORE_VARIABLE = "DECAYLAB_STORE"
DEFAULT_TARGET = "decaylab.runs.worker:train"
_IDLE_SECONDS = 0.25
_PATIENCE_SECONDS = 600.0
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


def train(config: Mapping[str, Any], record: Callable[[Mapping[str, Any]], None], **options: Any) -> Outcome:
    """Train a run with decaylab's loop; the default of ``--target``.

    Args:
        config: The run's config as plain data.
        record: Takes metrics, and ``{"resume": step}`` before them when training goes on from a checkpoint.
        options: ``folder``, ``device``, ``resolve``, ``heartbeat`` and ``resume`` of `decaylab.train.loop.fit`.
    """
    from decaylab.train.config import from_dict
    from decaylab.train.loop import fit

    return fit(from_dict(dict(config)), record, **options)


class Worker:
    """Trains the runs of a queue, one after another, under one worker name."""

    def __init__(
        self,
        store: Store,
        queue: Queue,
        *,
        name: str,
        device: str = "cpu",
        threads: int = 1,
        target: Callable[..., Outcome] = train,
        lease_seconds: float = 60.0,
    ) -> None:
        self._store, self._queue, self._name = store, queue, name
        self._device, self._threads, self._target, self._lease_seconds = device, threads, target, lease_seconds
        self.stopping = False
        """Set this to make the run in progress write a checkpoint and stop."""

    def work(self) -> None:
        """Train until every run of the queue has ended or failed, by whomever, or until told to stop."""
        about = environment.describe(self._device, self._threads)
        while not self.stopping:
            run = self._insist(lambda: self._queue.take(self._name, self._lease_seconds, about))
            if run is not None:
                self._train(run.id)
            elif self._insist(self._queue.is_settled):
                return
            else:
                time.sleep(_IDLE_SECONDS)  # others train what is left, or what the rest needs

    def _train(self, run_id: str) -> None:
        row = self._insist(lambda: self._store.get(run_id))
        assert row is not None  # a lease was won on it
        status, reason, summary, step = "failed", "", None, None
        writer = self._insist(lambda: self._store.writer(run_id, self._name))
        started = False

        def record(mapping: Mapping[str, Any]) -> None:
            nonlocal started
            if not started:
                # What an earlier attempt wrote after its checkpoint (or at all, without one) is written again.
                started = True
                self._insist(lambda: self._store.truncate(run_id, int(mapping.get("resume", -1))))
            if "checkpoint" in mapping:
                # Points up to a checkpoint are never computed again: they have to be safe before it is.
                self._insist(writer.flush)
            elif "resume" not in mapping:
                writer.record(mapping)

        def heartbeat(step: int, total_steps: int) -> bool:
            pulse.step, pulse.total_steps = step, total_steps
            writer.flush_if_due()
            if pulse.lost:
                raise LeaseLost(f"run {run_id} was taken over by another worker")  # no checkpoint: the folder is theirs
            return not self.stopping

        try:
            with Pulse(self._store, run_id, self._name, self._lease_seconds) as pulse:
                pulse.step, pulse.total_steps = row.step, row.total_steps
                outcome = self._target(
                    row.config,
                    record,
                    folder=self._store.folder(run_id),
                    device=self._device,
                    resolve=self._store.folder,
                    heartbeat=heartbeat,
                    resume=True,
                )
                self._insist(writer.flush)
            status, reason, summary, step = outcome.status, outcome.reason, outcome.summary, outcome.steps
        except LeaseLost:
            return
        except Exception as error:  # whatever a run does wrong, the other runs go on
            reason = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
            atomic_write_text(self._store.folder(run_id) / "error.txt", traceback.format_exc())
            with suppress(DecaylabError):
                writer.flush()  # what it measured before may tell why
        self._insist(
            lambda: self._store.finish(run_id, self._name, status=status, reason=reason, summary=summary, step=step)
        )

    def _insist(self, action: Callable[[], _Result]) -> _Result:
        """Repeat ``action`` while the store does not answer: hours of training are worth minutes of waiting."""
        until, pause = time.monotonic() + _PATIENCE_SECONDS, 0.5
        while True:
            try:
                return action()
            except StoreUnreachable:
                if self.stopping or time.monotonic() > until:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, 30.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker process; returns its exit code."""
    arguments = _parser().parse_args(argv)
    url = arguments.store or os.environ.get(STORE_VARIABLE)
    try:
        target, device = _load(arguments.target), _device(arguments.device)
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(arguments.threads)
        with Store(url) as store:
            worker = Worker(
                store,
                Queue.from_json(store, arguments.queue.read_text()),
                name=arguments.worker,
                device=device,
                threads=arguments.threads,
                target=target,
                lease_seconds=arguments.lease_seconds,
            )
            _listen(worker, arguments.lifeline)
            worker.work()
    except DecaylabError as error:
        print(f"decaylab: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m decaylab.runs.worker", description="Train the runs of a queue.")
    add = parser.add_argument
    add("--store", help=f"the store's path or URL; better in {STORE_VARIABLE} when it has a password")
    add("--queue", type=Path, required=True, help="JSON file: a list of {id, cost, needs}; the runs are in the store")
    add("--worker", default=uuid.uuid4().hex, help="a name that no other worker has")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--threads", type=int, default=1, help="threads of this process")
    add("--lease-seconds", type=float, default=60.0, help="after this long without a sign of life others take over")
    add(
        "--target",
        default=DEFAULT_TARGET,
        help="package.module:function that trains a run, importable here; for tests and custom engines",
    )
    add("--lifeline", action="store_true", help="stop when the standard input closes")
    return parser


def _load(target: str) -> Callable[..., Outcome]:
    module, _, name = target.partition(":")
    if target == DEFAULT_TARGET:
        importlib.import_module("decaylab.train.loop")  # imports torch now, once, before the first lease
        return train
    try:
        found: Callable[..., Outcome] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DecaylabError(f"cannot load --target {target}: {error}; expected package.module:function") from error
    return found


def _device(name: str) -> str:
    if name != "auto":
        return name
    torch = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"


def _listen(worker: Worker, lifeline: bool) -> None:
    """Make signals, and the end of the standard input, stop the worker after a checkpoint."""

    def stop(*_: object) -> None:
        worker.stopping = True

    def wait_for_the_end() -> None:
        while os.read(0, 4096):
            pass
        stop()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    if lifeline:
        threading.Thread(target=wait_for_the_end, name="lifeline", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
