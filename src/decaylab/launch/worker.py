"""A worker process: lease runs, train them, write their metrics, take the next; until nothing is left or it shall stop.

Started by the launcher; by hand or by a cluster's scheduler it is ``python -m decaylab.launch.worker --store URL
--queue FILE``. It stops cleanly, with a checkpoint, on SIGTERM, on Ctrl-C, and (with ``--lifeline``) when its standard
input closes, which happens when the launcher dies.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from decaylab.errors import DecaylabError
from decaylab.launch import environment
from decaylab.launch.malloc import keep_freed_memory
from decaylab.launch.run_session import Attempt, Outcome, insist
from decaylab.launch.scheduler import Queue, Run
from decaylab.store.store import Store

STORE_VARIABLE = "DECAYLAB_STORE"
DEFAULT_TARGET = "decaylab.launch.worker:train"
_IDLE_SECONDS = 0.1


def train(config: Mapping[str, Any], record: Callable[[Mapping[str, Any]], None], **options: Any) -> Outcome:
    """Train a run with decaylab's loop; the default of ``--target``.

    Args:
        config: The run's config as plain data.
        record: Takes metrics, and ``{"resume": step}`` before them when training goes on from a checkpoint.
        options: ``folder``, ``device``, ``resolve``, ``heartbeat`` and ``resume`` of `decaylab.train.fit.fit`.
    """
    from decaylab.config.identity import from_dict
    from decaylab.train.fit import fit

    return fit(from_dict(dict(config)), record, **options)


def train_side_by_side(runs: Sequence[Mapping[str, Any]], **options: Any) -> Iterator[tuple[int, Outcome | Exception]]:
    """Train runs of one company with decaylab's loop; yields the number of each as it ends, and how it ended.

    Args:
        runs: For each run its ``config``, ``record``, ``folder`` and ``heartbeat``, as `train` takes them.
        options: ``device`` and ``resolve``.
    """
    from decaylab.config.identity import from_dict
    from decaylab.train.fit import Job, fit_side_by_side

    jobs, numbers = [], []
    for number, run in enumerate(runs):
        try:
            jobs.append(Job(**{**run, "config": from_dict(dict(run["config"]))}))
            numbers.append(number)
        except DecaylabError as error:
            yield number, error
    for number, ended in fit_side_by_side(jobs, **options):
        yield numbers[number], ended


class Worker:
    """Trains the runs of a queue under one worker name: one after another, small ones side by side."""

    def __init__(
        self,
        store: Store,
        queue: Queue,
        *,
        name: str,
        device: str = "cpu",
        threads: int = 1,
        target: Callable[..., Outcome] = train,
        side_by_side: Callable[..., Iterator[tuple[int, Outcome | Exception]]] | None = None,
        lease_seconds: float = 60.0,
    ) -> None:
        self._store, self._queue, self._name = store, queue, name
        self._device, self._threads, self._lease_seconds = device, threads, lease_seconds
        self._target, self._side_by_side = target, side_by_side
        self.stopping = False
        """Set this to make the runs in progress write a checkpoint and stop."""

    def work(self) -> None:
        """Train until every run of the queue has ended or failed, by whomever, or until told to stop."""
        about = environment.describe(self._device, self._threads)
        several = self._side_by_side is not None
        while not self.stopping:
            runs = insist(lambda: self._queue.take(self._name, self._lease_seconds, about, several=several), self)
            if runs:
                self._train(runs)
            elif insist(self._queue.is_settled, self):
                return
            else:
                time.sleep(_IDLE_SECONDS)  # others train what is left, or what the rest needs

    def _train(self, runs: Sequence[Run]) -> None:
        attempts = [Attempt(self._store, run.id, self._name, self._lease_seconds, self) for run in runs]
        for attempt, ended in self._ends(attempts):
            attempt.end(ended)

    def _ends(self, attempts: Sequence[Attempt]) -> Iterator[tuple[Attempt, Outcome | Exception]]:
        """Train, and say how each attempt ends as it does."""
        options = {"device": self._device, "resolve": self._store.folder}
        left = list(attempts)
        try:
            if self._side_by_side is None or len(attempts) == 1:
                outcome = self._target(**_parts(attempts[0]), **options, resume=True)
                yield left.pop(), outcome
                return
            for number, ended in self._side_by_side([_parts(attempt) for attempt in attempts], **options):
                left.remove(attempts[number])
                yield attempts[number], ended
        except Exception as error:  # whatever a run does wrong, the other runs go on
            yield from ((attempt, error) for attempt in left)


def _parts(attempt: Attempt) -> dict[str, Any]:
    """Return what a training function gets of an attempt, by the names of its arguments."""
    return {
        "config": attempt.config,
        "record": attempt.record,
        "folder": attempt.folder,
        "heartbeat": attempt.heartbeat,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker process; returns its exit code."""
    arguments = _parser().parse_args(argv)
    url = arguments.store or os.environ.get(STORE_VARIABLE)
    keep_freed_memory()
    try:
        target, side_by_side = _load(arguments.target)
        device = _device(arguments.device)
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(arguments.threads)
        with Store(url) as store:
            worker = Worker(
                store,
                Queue.from_file(store, arguments.queue),
                name=arguments.worker,
                device=device,
                threads=arguments.threads,
                target=target,
                side_by_side=side_by_side,
                lease_seconds=arguments.lease_seconds,
            )
            _listen(worker, arguments.lifeline)
            worker.work()
    except DecaylabError as error:
        print(f"decaylab: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m decaylab.launch.worker", description="Train the runs of a queue.")
    add = parser.add_argument
    add("--store", help=f"the store's path or URL; better in {STORE_VARIABLE} when it has a password")
    add("--queue", type=Path, required=True, help="JSON file, see runs/queue.py; the runs are in the store")
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


def _load(target: str) -> tuple[Callable[..., Outcome], Any]:
    """Return the training function, and the ``train_side_by_side`` of its module if there is one."""
    module, _, name = target.partition(":")
    if target == DEFAULT_TARGET:
        with _no_collections():
            importlib.import_module("decaylab.train.fit")  # imports torch now, once, before the first lease
            importlib.import_module("torch._dynamo")  # which torch's optimizers import when the first is made
        return train, train_side_by_side
    try:
        found = importlib.import_module(module)
        return getattr(found, name), getattr(found, "train_side_by_side", None)
    except (ImportError, AttributeError, ValueError) as error:
        raise DecaylabError(f"cannot load --target {target}: {error}; expected package.module:function") from error


@contextmanager
def _no_collections() -> Iterator[None]:
    """Look for no garbage inside the block, and never again among what is there at its end.

    What torch's modules make stays, and to go through all of it takes a tenth of a second each time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


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


def _leave(code: int) -> NoReturn:
    """End the process without taking torch's modules apart, which would take most of a second."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.exit(code)  # a custom engine's threads are still at work
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
