"""How fast runs go and when all will be done, from the steps that workers report."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from decaylab.launch.scheduler import Run
from decaylab.store.records import State


@dataclass(frozen=True)
class Pace:
    """One running run.

    Attributes:
        name: What it is called.
        step: Steps done.
        total_steps: Steps in all, 0 while nobody has said.
        rate: Steps a second; ``None`` until two reports came.
        tokens: Tokens a step; 0 where they are not counted.
        share: Its operations a second as a share of what its machine was measured to do; 0 where that was not measured.
    """

    name: str
    step: int
    total_steps: int
    rate: float | None
    tokens: int = 0
    share: float = 0.0


@dataclass(frozen=True)
class View:
    """All that a progress display shows.

    Attributes:
        total: Number of runs.
        ended: Number that are done or diverged.
        failed: Number that failed.
        running: Those in progress.
        seconds: Since the start.
        eta: Seconds until all have ended, ``None`` while nothing was measured.
    """

    total: int
    ended: int
    failed: int
    running: tuple[Pace, ...]
    seconds: float
    eta: float | None


class Meter:
    """Turns successive states of the runs into rates and an estimate.

    Args:
        runs: What is trained.
        now: Seconds of a monotonic clock.
        peak: Gives the operations a second of the machine that trains a run, 0 where they were not measured; asked once
            for each worker that takes it.
    """

    def __init__(self, runs: Sequence[Run], now: float, peak: Callable[[str], float] = lambda run_id: 0.0) -> None:
        self._runs, self._peak = {run.id: run for run in runs}, peak
        self._peaks: dict[tuple[str, str], float] = {}  # by run and worker
        self._start = self._last = now
        self._busy = 0.0  # worker seconds spent on runs
        self._achieved: dict[str, float] = {}  # share of each run trained since the start of this launch
        self._first: dict[str, tuple[str, float, int]] = {}  # run -> (worker, time, step) of the first report
        self._before: dict[str, float] = {}

    def see(self, states: Mapping[str, State], now: float, workers: int) -> View:
        """Take the states at a moment (seconds of a monotonic clock) and say how things stand."""
        running, rest, waiting, ended, failed = [], [], [], 0, 0
        for run in self._runs.values():
            state = states[run.id]
            share = 1.0 if state.is_ended else _share(state)
            # What was trained before this launch took no time of its workers.
            self._achieved[run.id] = max(0.0, share - self._before.setdefault(run.id, share))
            if state.is_ended:
                ended += 1
            elif state.status == "failed":
                failed += 1
            elif state.alive:
                rate = self._rate(run.id, state, now)
                share_of_peak = self._share_of_peak(run, state, rate)
                running.append(Pace(run.name, state.step, state.total_steps, rate, run.tokens, share_of_peak))
                rest.append((run.cost * (1 - share), (state.total_steps - state.step) / rate if rate else None))
            else:
                waiting.append(run.cost * (1 - share))
        self._busy += (now - self._last) * len(running)
        self._last = now
        return View(
            len(self._runs), ended, failed, tuple(running), now - self._start, self._eta(rest, waiting, workers)
        )

    def _share_of_peak(self, run: Run, state: State, rate: float | None) -> float:
        if not rate or not run.flops:
            return 0.0
        key = run.id, state.worker
        if key not in self._peaks:  # it trains, so it has measured, if it does
            self._peaks[key] = self._peak(run.id)
        return rate * run.flops / self._peaks[key] if self._peaks[key] else 0.0

    def _rate(self, run_id: str, state: State, now: float) -> float | None:
        worker, since, step = self._first.get(run_id, ("", 0.0, 0))  # when the first step was still to come
        if worker != state.worker or state.step <= step:
            self._first[run_id] = (state.worker, now, state.step)  # steps have not begun: nor has their time
            return None
        return (state.step - step) / (now - since) if now > since else None

    def _eta(self, rest: Iterable[tuple[float, float | None]], waiting: Iterable[float], workers: int) -> float | None:
        """Estimate the seconds until the last run ends, by dealing the runs out as the workers will take them."""
        work = sum(self._runs[run_id].cost * share for run_id, share in self._achieved.items())
        rest, waiting = list(rest), sorted(waiting, reverse=True)
        unit = self._busy / work if work > 0 else None  # worker seconds a unit of cost
        if unit is None and (waiting or any(seconds is None for _, seconds in rest)):
            return None
        free = [seconds if seconds is not None else cost * (unit or 0.0) for cost, seconds in rest]
        free += [0.0] * (workers - len(free))
        heapq.heapify(free)
        for cost in waiting:
            heapq.heapreplace(free, free[0] + cost * (unit or 0.0)) if free else heapq.heappush(free, 0.0)
        return max(free, default=0.0)


def _share(state: State) -> float:
    return min(1.0, state.step / state.total_steps) if state.total_steps else 0.0


def clock(seconds: float) -> str:
    """Write a duration for people: 8s, 3m05s, 2h07m, 3d04h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
