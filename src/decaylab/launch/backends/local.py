"""Launch of runs on this machine: workers are started, replaced when they die, and stopped cleanly."""

from __future__ import annotations

import math
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from decaylab.errors import DecaylabError
from decaylab.files import atomic_write_text
from decaylab.launch import environment
from decaylab.launch.backends.worker_process import WorkerProcess
from decaylab.launch.devices import find_device
from decaylab.launch.placement import Crew, crews
from decaylab.launch.progress import Display, display
from decaylab.launch.report import LaunchReport, closing_lines
from decaylab.launch.run_session import ERROR_FILE
from decaylab.launch.scheduler import Queue, Run
from decaylab.launch.throughput import Meter
from decaylab.launch.worker import DEFAULT_TARGET
from decaylab.store.database import StoreUnreachable
from decaylab.store.patience import insist
from decaylab.store.store import Store
from decaylab.train.checkpoints import layout

__all__ = ["LaunchReport", "Run", "launch"]

_LOOK_SECONDS = 0.05  # between looks at the processes
_SHOW_SECONDS = 0.5  # between looks at the store
_STOP_SECONDS = 60.0  # for the checkpoints of a stop
_SETTLED_SECONDS = 60.0  # a worker that lived so long could work
_FULL_BYTES = 1 << 16
_Result = TypeVar("_Result")


def launch(
    store_url: str | None,
    runs: Sequence[Run],
    *,
    workers: int | None = None,
    device: str = "auto",
    progress: bool = True,
    target: str = DEFAULT_TARGET,
    attempts: int = 3,
    lease_seconds: float = 60.0,
) -> LaunchReport:
    """Train every run that has not ended yet, in worker processes, and wait for them.

    Runs that ended before are skipped; runs that failed before are tried again. Runs that another launcher trains are
    waited for, and taken over if it dies. Ctrl-C (or SIGTERM) makes the workers write checkpoints and stop; the same
    call goes on from there. A second one stops at once.

    Args:
        store_url: The store, as `Store` takes it.
        runs: What to train; entered into the store when new.
        workers: Number of processes; by default from the runs and the machine (see `decaylab.launch.placement`).
        device: ``auto`` (GPU if there is one), ``cpu``, ``cuda``, or one device such as ``cuda:1`` or ``mps``.
        progress: Show progress on the standard error.
        target: What trains a run: ``package.module:function`` or ``path/to/file.py:function``, see
            `decaylab.launch.own_training`.
        attempts: A run whose worker process died this often is failed.
        lease_seconds: After this long without a sign of life others may take a run over.

    Returns:
        What became of each run.

    Raises:
        DecaylabError: The runs need each other in a circle, the store cannot be used, or workers cannot start.
    """
    with Store(store_url) as store:
        queue = Queue(store, runs)
        for run in queue.runs:
            store.add(run.id, run.config, kind=run.kind)
        store.retry([run.id for run in queue.runs])
        return _Launch(store, queue, workers, device, progress, target, attempts, lease_seconds).run()


class _Launch:
    def __init__(
        self,
        store: Store,
        queue: Queue,
        workers: int | None,
        device: str,
        progress: bool,
        target: str,
        attempts: int,
        lease_seconds: float,
    ) -> None:
        self._store, self._queue, self._num_workers, self._device = store, queue, workers, device
        self._progress, self._target, self._attempts, self._lease_seconds = progress, target, attempts, lease_seconds
        self._names = {run.id: run.name for run in queue.runs}
        self._alone: set[str] = set()  # trained by themselves, because a worker died with several
        self._told: set[str] = set()
        self._waits = self._full = False
        self._say: Callable[[str], object] = Display().say
        self._signals = 0

    def run(self) -> LaunchReport:
        """Work until all runs are settled or a signal comes."""
        began = time.monotonic()
        states = self._insist(self._queue.states)
        skipped = tuple(run.id for run in self._queue.runs if states[run.id].is_ended)
        for run_id in skipped:
            if states[run_id].status == "done":  # its worker may have died before it removed them
                layout.prune(self._store.folder(run_id), keep=0)
        if len(skipped) < len(self._queue.runs):
            device, gpus = find_device(self._device)
            shown = display(self._progress)
            self._say = shown.say
            meter = Meter(self._queue.runs, began, self._store.peak_flops)
            try:
                with self._signals_counted():
                    while not self._signals and not self._insist(self._queue.is_settled):
                        crew = self._insist(lambda: self._next_crew(device, gpus))
                        if crew is not None:
                            self._run_crew(crew, shown, meter)
                        else:  # another launcher trains what is left, or what it needs: be there if that one dies
                            self._say_whom_it_waits_for(shown)
                            self._show(shown, meter, 0)
                            time.sleep(_SHOW_SECONDS)
            except StoreUnreachable:
                if not self._signals:
                    raise
            finally:
                shown.close()
        return self._report(skipped, time.monotonic() - began)

    def _say_whom_it_waits_for(self, shown: Display) -> None:
        """Say, once, why nothing is trained here."""
        held = sum(state.alive for state in self._insist(self._queue.states).values())
        if held and not self._waits:
            self._waits = True
            runs = f"{held} run{'s are' if held > 1 else ' is'} in the hands of another launch"
            shown.say(f"{runs}, and taken over when it has not been heard of for {self._lease_seconds:g} s")

    def _next_crew(self, device: str, gpus: int) -> Crew | None:
        """Return a crew for the runs that can be trained now and those that follow; ``None`` if there are none."""
        states = self._queue.give_up_blocked()
        free = [
            run
            for run in self._queue.runs
            if not (states[run.id].is_ended or states[run.id].status == "failed" or states[run.id].alive)
        ]
        for crew in crews(free, cores=environment.cores(), device=device, gpus=gpus, workers=self._num_workers):
            own: dict[str, Run] = {}
            size = -1
            while len(own) > size:
                size = len(own)
                own |= {r.id: r for r in crew.runs if all(n in own or states[n].is_ended for n in r.needs)}
            if own:
                return Crew(tuple(own.values()), crew.devices[: len(own)], crew.threads)
        return None

    def _run_crew(self, crew: Crew, shown: Display, meter: Meter) -> None:
        queue = Queue(self._store, crew.runs)
        workers = len(crew.devices) if set(crew.devices) == {"cpu"} else 0
        processes: list[WorkerProcess] = []
        next_show, until = 0.0, math.inf
        try:
            for device in crew.devices:
                self._start(processes, queue.to_json(workers), device, crew.threads, shown)
            while processes:
                for process in [p for p in processes if p.code is not None]:
                    processes.remove(process)
                    self._replace(process, processes, queue, workers, shown)
                for process in processes:
                    process.pump()
                if self._signals and until == math.inf:
                    shown.say("stopping: the runs write their checkpoints (Ctrl-C again to stop at once)")
                    until = time.monotonic() + _STOP_SECONDS
                    for process in processes:
                        process.stop()
                if self._signals > 1 or time.monotonic() > until:
                    break
                if time.monotonic() >= next_show:
                    self._show(shown, meter, len(processes))
                    next_show = time.monotonic() + _SHOW_SECONDS
                if processes:
                    time.sleep(_LOOK_SECONDS)
        except BaseException:  # what is trained must not be lost with the launcher
            self._stop_all(processes)
            raise
        finally:
            for process in processes:
                process.kill()
                with suppress(DecaylabError):  # the lease runs out by itself
                    for lease in self._store.held_by(process.name):
                        self._store.finish(lease, status="interrupted", reason="stopped at once")
                process.close()
        self._show(shown, meter, len(crew.devices))

    def _start(
        self, processes: list[WorkerProcess], listing: str, device: str, threads: int, shown: Display
    ) -> WorkerProcess | None:
        """Start a worker; where the machine has no room for it, those that run go on without."""
        try:
            process = WorkerProcess(
                self._store.url,
                listing,
                device=device,
                threads=threads,
                target=self._target,
                lease_seconds=self._lease_seconds,
            )
        except OSError as error:
            if not processes:
                raise DecaylabError(f"no worker process can be started: {error.strerror}") from error
            shown.say(f"one worker less: another process cannot be started ({error.strerror})")
            return None
        processes.append(process)
        return process

    def _replace(
        self, process: WorkerProcess, others: list[WorkerProcess], queue: Queue, workers: int, shown: Display
    ) -> None:
        """Free the runs of a process that has ended, and start another if it died before the work was done."""
        died = self._insist(lambda: self._reap(process))
        if died and not self._signals and not self._insist(queue.is_settled):
            how, words = process.how_it_ended(), process.last_words()
            if process.idle_deaths < self._attempts:
                listing = queue.to_json(workers, alone=self._alone)
                for other in others:
                    other.send(listing)
                successor = self._start(others, listing, process.device, process.threads, shown)
                if successor is not None:
                    successor.idle_deaths = process.idle_deaths
            elif others:
                why = f": {words}" if words else ""
                times = f" {process.idle_deaths} times" if process.idle_deaths > 1 else ""
                shown.say(f"one worker less: it died{times} with nothing to train, {how}{why}")
            else:
                path = self._store.folder() / "worker-error.txt"
                kept = _keep_log(process, path)
                raise DecaylabError(
                    f"workers cannot work ({how}): {words or 'it wrote nothing'}{f'; see {path}' if kept else ''}"
                )
        process.close()

    def _reap(self, process: WorkerProcess) -> bool:
        """Free the runs of a process that has ended; say whether it died (rather than finished its work)."""
        held = self._store.held_by(process.name)
        if process.code == 0 and not held:
            return False
        if not held:
            process.idle_deaths = 1 if process.seconds > _SETTLED_SECONDS else process.idle_deaths + 1
            return True
        process.idle_deaths = 0
        how, words = process.how_it_ended(), process.last_words()
        if len(held) > 1:  # which of them it was shows when each is trained by itself
            self._alone.update(lease.run_id for lease in held)
        for lease in held:
            _keep_log(process, self._store.folder(lease.run_id) / ERROR_FILE)
            why = f"{how}: {words}" if words else how
            self._store.died(lease, why, attempts=self._attempts, counts=len(held) == 1)
        return True

    def _stop_all(self, processes: Sequence[WorkerProcess]) -> None:
        """Let workers write checkpoints, for a while."""
        for process in processes:
            process.stop()
        until = time.monotonic() + _STOP_SECONDS
        while any(process.code is None for process in processes) and time.monotonic() < until and self._signals < 2:
            time.sleep(_LOOK_SECONDS)

    def _insist(self, action: Callable[[], _Result]) -> _Result:
        return insist(action, lambda: self._signals > 0, self._say)

    def _show(self, shown: Display, meter: Meter, num_workers: int) -> None:
        with suppress(StoreUnreachable):
            states = self._queue.states()
            for run_id, name in self._names.items():
                if states[run_id].status == "failed" and run_id not in self._told:
                    self._told.add(run_id)
                    shown.say(f"failed: {name} ({run_id}): {states[run_id].reason}")
            shown.show(meter.see(states, time.monotonic(), num_workers))
        self._say_if_full(shown)

    def _say_if_full(self, shown: Display) -> None:
        """Say, once, that the runs wait for room on the disk."""
        folder = next((path for path in (self._store.folder(), *self._store.folder().parents) if path.is_dir()), None)
        full = folder is not None and shutil.disk_usage(folder).free < _FULL_BYTES
        if full and not self._full:
            shown.say(f"the disk of {folder} is full: free some space on it, the runs wait for it")
        self._full = full

    def _report(self, skipped: tuple[str, ...], seconds: float) -> LaunchReport:
        states = self._insist(self._queue.states)
        new = {run.id: states[run.id] for run in self._queue.runs if run.id not in skipped}
        report = LaunchReport(
            done=tuple(run_id for run_id, state in new.items() if state.status == "done"),
            diverged=tuple(run_id for run_id, state in new.items() if state.status == "diverged"),
            failed={run_id: state.reason for run_id, state in new.items() if state.status == "failed"},
            skipped=skipped,
            seconds=seconds,
            interrupted=not self._queue.is_settled(states),
        )
        if self._progress:
            for line in closing_lines(report, self._names, self._store):
                print(line, file=sys.stderr)
        return report

    @contextmanager
    def _signals_counted(self) -> Iterator[None]:
        """Count SIGINT and SIGTERM instead of dying of them (only the main thread may ask for that)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def count(*_: Any) -> None:
            self._signals += 1

        before: dict[signal.Signals, Callable[..., Any] | int | None] = {}
        try:
            for name in (signal.SIGINT, signal.SIGTERM):
                before[name] = signal.signal(name, count)
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)


def _keep_log(process: WorkerProcess, path: Path) -> bool:
    """Keep what a dead process has written; return whether the disk had room for it."""
    with suppress(OSError):
        atomic_write_text(
            path, f"The worker process ended {process.how_it_ended()}. Its last output:\n{process.log()}\n"
        )
        return True
    return False
