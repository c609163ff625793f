"""Worker process: it leases runs, trains them, writes their metrics and takes the next, until nothing is left.

Started by a launcher with ``--queue -``, which gets the queue from the standard input; by hand or by a cluster's
scheduler it is ``python -m decaylab.launch.worker --store URL --queue FILE``. It stops cleanly, with a checkpoint, on
SIGTERM, on Ctrl-C, and when a standard input that it listens to closes, which happens when the launcher dies.
"""

from __future__ import annotations

import argparse
import atexit
import faulthandler
import gc
import importlib
import inspect
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from decaylab.errors import DecaylabError
from decaylab.launch import environment
from decaylab.launch.lifeline import Lifeline
from decaylab.launch.malloc import keep_freed_memory
from decaylab.launch.own_training import adapted
from decaylab.launch.run_session import Outcome, RunSession
from decaylab.launch.scheduler import Queue
from decaylab.references import load
from decaylab.store.leases import LONGEST_NAME, Lease
from decaylab.store.patience import insist
from decaylab.store.store import Store

STORE_VARIABLE = "DECAYLAB_STORE"
DEFAULT_TARGET = "decaylab.launch.worker:train"
_INPUT = "-"
_IDLE_SECONDS = 0.1
_Result = TypeVar("_Result")


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
        self._takes_ledger = _takes(target, "ledger")
        self.stopping = False
        """Set this to make the runs in progress write a checkpoint and stop."""

    def work(self) -> None:
        """Train until every run of the queue has ended or failed, by whomever, or until told to stop."""
        about = environment.describe(self._device, self._threads)
        several = self._side_by_side is not None
        while not self.stopping:
            leases = self._insist(lambda: self._queue.take(self._name, self._lease_seconds, about, several=several))
            if leases:
                self._train(leases)
            elif self._insist(self._queue.is_settled):
                return
            else:
                time.sleep(_IDLE_SECONDS)  # others train what is left, or what the rest needs

    def _train(self, leases: Sequence[Lease]) -> None:
        sessions = [RunSession(self._store, lease, self._lease_seconds, self) for lease in leases]
        for session, ended in self._ends(sessions):
            session.end(ended)

    def _ends(self, sessions: Sequence[RunSession]) -> Iterator[tuple[RunSession, Outcome | Exception]]:
        """Train, and say how each run ends as it does."""
        options = {"device": self._device, "resolve": self._store.folder}
        left = list(sessions)
        try:
            if self._side_by_side is None or len(sessions) == 1:
                outcome = self._target(**self._parts(sessions[0]), **options, resume=True)
                yield left.pop(), outcome
                return
            for number, ended in self._side_by_side([self._parts(session) for session in sessions], **options):
                left.remove(sessions[number])
                yield sessions[number], ended
        except Exception as error:  # whatever a run does wrong, the other runs go on
            yield from ((session, error) for session in left)

    def _parts(self, session: RunSession) -> dict[str, Any]:
        """Return what a training function gets of a run, by the names of its arguments."""
        parts = {
            "config": session.config,
            "record": session.record,
            "folder": session.folder,
            "heartbeat": session.heartbeat,
        }
        return parts | {"ledger": session} if self._takes_ledger else parts

    def _insist(self, action: Callable[[], _Result]) -> _Result:
        return insist(action, lambda: self.stopping)


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has an argument of this name; a custom engine need not have them all."""
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == name or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker process; returns its exit code."""
    arguments = _parser().parse_args(argv)
    url = arguments.store or os.environ.get(STORE_VARIABLE)
    faulthandler.enable()  # a crash in native code leaves a trace for the launcher
    keep_freed_memory()
    lifeline = Lifeline() if arguments.lifeline or arguments.queue == _INPUT else None
    try:
        # Before the imports: the launcher goes on as soon as it has written the queue.
        text = lifeline.line() if lifeline and arguments.queue == _INPUT else None
        if text is None and arguments.queue == _INPUT:
            return 0  # the launcher is gone already
        target, side_by_side = _load(arguments.target)
        device = _device(arguments.device)
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(arguments.threads)
        with insist(lambda: Store(url), say=lambda line: print(f"decaylab: {line}", file=sys.stderr)) as store:
            queue = Queue.from_json(store, text) if text is not None else Queue.from_file(store, Path(arguments.queue))
            worker = Worker(
                store,
                queue,
                name=arguments.worker,
                device=device,
                threads=arguments.threads,
                target=target,
                side_by_side=side_by_side,
                lease_seconds=arguments.lease_seconds,
            )

            def stop(*_: object) -> None:
                worker.stopping = True

            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, stop)
            if lifeline is not None:
                lifeline.watch(queue.become, stop)
            worker.work()
    except DecaylabError as error:
        print(f"decaylab: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m decaylab.launch.worker", description="Train the runs of a queue.")
    add = parser.add_argument
    add("--store", help=f"the store's path or URL; better in {STORE_VARIABLE} when it has a password")
    add("--queue", required=True, help="JSON file, see launch/scheduler.py, or - for lines on the standard input")
    add(
        "--worker",
        default=uuid.uuid4().hex,
        help=f"a name that no other worker has, of up to {LONGEST_NAME} characters",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--threads", type=int, default=1, help="threads of this process")
    add("--lease-seconds", type=float, default=60.0, help="after this long without a sign of life others take over")
    add(
        "--target",
        default=DEFAULT_TARGET,
        help="package.module:function or path/to/file.py:function that trains a run; see launch/own_training.py",
    )
    add("--lifeline", action="store_true", help="stop when the standard input closes")
    return parser


def _load(target: str) -> tuple[Callable[..., Outcome], Any]:
    """Return the training function, and the ``train_side_by_side`` of its module if there is one."""
    if target == DEFAULT_TARGET:
        with _no_collections():
            importlib.import_module("decaylab.train.fit")  # imports torch now, once, before the first lease
            importlib.import_module("torch._dynamo")  # which torch's optimizers import when the first is made
        return train, train_side_by_side
    try:
        function = load(target)
    except DecaylabError as error:
        raise DecaylabError(f"cannot load --target {target}: {error}") from error
    beside = getattr(sys.modules.get(getattr(function, "__module__", "")), "train_side_by_side", None)
    return adapted(function), beside


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
