"""Trials by their settings: trained where they are missing, by the launcher's workers or in this process."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from decaylab.errors import DecaylabError
from decaylab.tuning import trial
from decaylab.tuning.coordinates import Point
from decaylab.tuning.record import Record


class Interrupted(Exception):
    """Trials were stopped before all had ended; the same search goes on from there."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a trial ended.

    Attributes:
        run: Its id.
        point: Its settings.
        status: ``done`` or ``diverged``.
        value: The metric, lower is better; infinite where it diverged.
        lr: Learning rate of its last step, where the script told it.
    """

    run: str
    point: Point
    status: str
    value: float
    lr: float | None = None


class Trials(Protocol):
    """What a search asks for results."""

    def run(self, points: Sequence[Point]) -> list[Result]:
        """Return the results of some settings, in their order; train what is missing."""


class LaunchedTrials:
    """Trials as runs of a store: a command or an importable function, placed by the launcher."""

    def __init__(
        self,
        store_url: str | None,
        task: Mapping[str, Any],
        record: Record,
        *,
        workers: int | None,
        device: str,
        progress: bool,
        sign: float,
    ) -> None:
        self._store_url, self._task, self._record, self._sign = store_url, task, record, sign
        self._workers, self._device, self._progress = workers, device, progress

    def run(self, points: Sequence[Point]) -> list[Result]:
        """Return the results of some settings, in their order; train what is missing.

        Raises:
            DecaylabError: A trial failed twice.
            Interrupted: The launch was stopped.
        """
        from decaylab.launch.backends.local import launch
        from decaylab.launch.scheduler import Run
        from decaylab.store.store import Store

        contents = {trial.trial_id(c): (p, c) for p in points for c in [trial.config(self._task, p)]}
        runs = [
            Run(id=run, config=c, kind=trial.KIND, cost=float(p.steps), label=_label(p))
            for run, (p, c) in contents.items()
        ]
        with Store(self._store_url) as store:
            url = store.url
        for _ in range(2):
            report = launch(
                url, runs, workers=self._workers, device=self._device, progress=self._progress, target=trial.TARGET
            )
            if report.interrupted:
                raise Interrupted
            if not report.failed:
                break
        else:
            run, reason = next(iter(report.failed.items()))
            raise DecaylabError(
                f"trial {_label(contents[run][0])} ({run}) failed twice: {reason}; the others are kept, and the same "
                "command goes on from there"
            )
        with Store(url) as store:
            rows = {row.id: row for row in store.rows(list(contents))}
        results = {}
        for run, (point, _) in contents.items():
            row = rows[run]
            value = self._sign * float(row.summary["value"]) if row.status == "done" else math.inf
            lr = row.summary.get("lr")
            results[point] = Result(
                run=run, point=point, status=row.status, value=value, lr=None if lr is None else float(lr)
            )
            self._record.add(run, point, row.status, None if math.isinf(value) else self._sign * value)
        return [results[point] for point in points]


class CalledTrials:
    """Trials of a function in this process, one after another; what ended is in the record."""

    def __init__(self, function: Callable[..., Any], record: Record, *, sign: float) -> None:
        self._function, self._record, self._sign = function, record, sign
        try:
            source = inspect.getsource(function)
        except (OSError, TypeError):
            source = repr(getattr(function, "__qualname__", type(function).__name__))
        # An object that trains says itself what decides its results.
        own = getattr(function, "identity", None)
        self._task = {"source": source, **(own if isinstance(own, Mapping) else {})}
        self._ended: dict[str, Result] = {}

    def run(self, points: Sequence[Point]) -> list[Result]:
        """Return the results of some settings, in their order; train what is missing.

        Raises:
            DecaylabError: The function raised, or gave no number.
        """
        return [self._one(point) for point in points]

    def _one(self, point: Point) -> Result:
        run = trial.trial_id(trial.config(self._task, point))
        if run in self._ended:
            return self._ended[run]
        value = self._record.value(run)
        if value is None:
            try:
                value = trial.call(self._function, point)
            except DecaylabError:
                raise
            except Exception as error:
                raise DecaylabError(
                    f"the function raised {type(error).__name__} at {_label(point)}: {error}"
                ) from error
            self._record.add(run, point, "done" if math.isfinite(value) else "diverged", value)
        loss = self._sign * value if math.isfinite(value) else math.inf
        self._ended[run] = Result(
            run=run, point=point, status="done" if math.isfinite(loss) else "diverged", value=loss
        )
        return self._ended[run]


def _label(point: Point) -> str:
    settings = asdict(point)
    repeated = f", repeat {settings['repeat']}" if settings["repeat"] else ""
    return f"wd {point.weight_decay:g}, lr {point.lr:g}, {point.steps:,} steps, seed {point.seed}{repeated}"
