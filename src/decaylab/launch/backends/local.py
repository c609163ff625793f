"""Train what the store lacks on this machine: start workers, replace dead ones, show progress, stop cleanly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decaylab.errors import DecaylabError
from decaylab.files import atomic_write_text
from decaylab.launch import environment
from decaylab.launch.devices import find_device
from decaylab.launch.placement import Crew, crews
from decaylab.launch.progress import Display, display
from decaylab.launch.report import LaunchReport, closing_lines
from decaylab.launch.scheduler import Queue, Run
from decaylab.launch.throughput import Meter
from decaylab.launch.worker import DEFAULT_TARGET, STORE_VARIABLE
from decaylab.store.database import StoreUnreachable
from decaylab.store.store import Store
from decaylab.train.checkpoints import layout as run_folder

__all__ = ["LaunchReport", "Run", "launch"]

_LOOK_SECONDS = 0.05  # between looks at the processes
_SHOW_SECONDS = 0.5  # between looks at the store
_STOP_SECONDS = 60.0  # for the checkpoints of a stop


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
        target: ``package.module:function`` that trains a run, for tests and custom engines; installed or on PYTHONPATH.
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


@dataclass
class _Process:
    """A worker process: its name in the store, its device, and where it writes what nobody expected."""

    name: str
    device: str
    popen: subprocess.Popen[bytes]
    log: Path


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
        self._deaths: dict[str, int] = {}
        self._idle_deaths = 0
        self._alone: set[str] = set()  # trained by themselves, because a worker died with several
        self._told: set[str] = set()
        self._waits = False
        self._signals = 0

    def run(self) -> LaunchReport:
        """Work until all runs are settled or a signal comes."""
        began = time.monotonic()
        states = self._queue.states()
        skipped = tuple(run.id for run in self._queue.runs if states[run.id].is_ended)
        for run_id in skipped:
            if states[run_id].status == "done":  # its worker may have died before it removed them
                run_folder.prune(self._store.folder(run_id), keep=0)
        if len(skipped) < len(self._queue.runs):
            device, gpus = find_device(self._device)
            shown = display(self._progress)
            meter = Meter(self._queue.runs, began, self._store.peak_flops)
            try:
                with tempfile.TemporaryDirectory(prefix="decaylab-") as scratch, self._signals_counted():
                    while not self._signals and not self._queue.is_settled():
                        crew = self._next_crew(device, gpus)
                        if crew is not None:
                            self._run_crew(crew, Path(scratch), shown, meter)
                        else:  # another launcher trains what is left, or what it needs: be there if that one dies
                            self._say_whom_it_waits_for(shown)
                            self._show(shown, meter, 0)
                            time.sleep(_SHOW_SECONDS)
            finally:
                shown.close()
        return self._report(skipped, time.monotonic() - began)

    def _say_whom_it_waits_for(self, shown: Display) -> None:
        """Say, once, why nothing is trained here."""
        held = sum(state.alive for state in self._queue.states().values())
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

    def _run_crew(self, crew: Crew, scratch: Path, shown: Display, meter: Meter) -> None:
        queue = Queue(self._store, crew.runs)
        listing = scratch / f"{uuid.uuid4().hex}.json"
        workers = len(crew.devices) if set(crew.devices) == {"cpu"} else 0
        listing.write_text(queue.to_json(workers))
        processes = [self._start(device, crew.threads, listing) for device in crew.devices]
        next_show, warned = 0.0, False
        try:
            while processes:
                with suppress(StoreUnreachable):  # then at the next look
                    for process in [p for p in processes if p.popen.poll() is not None]:
                        died = self._bury(process) and not self._signals and not queue.is_settled()
                        processes.remove(process)
                        if died:
                            atomic_write_text(listing, queue.to_json(workers, alone=self._alone))
                            processes.append(self._start(process.device, crew.threads, listing))
                if self._signals:
                    if not warned:
                        shown.say("stopping: the runs write their checkpoints (Ctrl-C again to stop at once)")
                        warned, until = True, time.monotonic() + _STOP_SECONDS
                        for process in processes:
                            _close(process)
                    if self._signals > 1 or time.monotonic() > until:
                        break
                if time.monotonic() >= next_show:
                    self._show(shown, meter, len(crew.devices))
                    next_show = time.monotonic() + _SHOW_SECONDS
                if processes:
                    time.sleep(_LOOK_SECONDS)
        finally:
            for process in processes:
                process.popen.kill()
                process.popen.wait()
                self._release(process.name, "interrupted", "stopped at once")
        self._show(shown, meter, len(crew.devices))

    def _start(self, device: str, threads: int, listing: Path) -> _Process:
        name = uuid.uuid4().hex
        log = listing.with_name(f"{name}.log")
        command = [sys.executable, "-P", "-m", "decaylab.launch.worker", "--lifeline", "--queue", str(listing)]
        command += ["--worker", name, "--device", device, "--threads", str(threads), "--target", self._target]
        command += ["--lease-seconds", str(self._lease_seconds)]
        # The URL may hold a password: a process's environment is its user's alone, its command line is everybody's.
        variables = {**os.environ, STORE_VARIABLE: self._store.url}
        variables |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        with log.open("wb") as output:
            # A session of its own: Ctrl-C reaches the launcher alone, which then stops the workers in order.
            popen = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=variables, start_new_session=True
            )
        return _Process(name, device, popen, log)

    def _bury(self, process: _Process) -> bool:
        """Free the runs of a process that has ended; say whether it died (rather than finished its work)."""
        _close(process)
        code = process.popen.returncode
        held = self._store.held_by(process.name)
        if code == 0 and not held:
            return False
        how = _how_it_died(code)
        if not held:
            self._idle_deaths += 1
            if self._idle_deaths >= self._attempts:
                last = process.log.read_text(errors="replace").strip().splitlines()[-1:] or ["it wrote nothing"]
                raise DecaylabError(f"workers cannot work ({how}): {last[0].removeprefix('decaylab: ')}")
        if len(held) > 1:  # which of them it was shows when each is trained by itself
            self._alone.update(held)
            for run_id in held:
                self._store.finish(run_id, process.name, status="waiting")
            return True
        for run_id in held:
            deaths = self._deaths[run_id] = self._deaths.get(run_id, 0) + 1
            if deaths >= self._attempts:
                reason = f"its worker process died {deaths} times, the last time {how}"
                self._store.finish(run_id, process.name, status="failed", reason=reason)
            else:
                self._store.finish(run_id, process.name, status="waiting")
        return True

    def _release(self, worker: str, status: str, reason: str) -> None:
        for run_id in self._store.held_by(worker):
            self._store.finish(run_id, worker, status=status, reason=reason)

    def _show(self, shown: Display, meter: Meter, num_workers: int) -> None:
        with suppress(StoreUnreachable):
            states = self._queue.states()
            for run_id, name in self._names.items():
                if states[run_id].status == "failed" and run_id not in self._told:
                    self._told.add(run_id)
                    shown.say(f"failed: {name} ({run_id}): {states[run_id].reason}")
            shown.show(meter.see(states, time.monotonic(), num_workers))

    def _report(self, skipped: tuple[str, ...], seconds: float) -> LaunchReport:
        states = self._queue.states()
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


def _close(process: _Process) -> None:
    """Close a worker's lifeline, which tells it to stop."""
    assert process.popen.stdin is not None
    with suppress(OSError):
        process.popen.stdin.close()


def _how_it_died(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"with exit code {code}"
