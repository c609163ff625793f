"""The results of an experiment's runs: labelled tables of whatever was recorded, complete or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd

    from decaylab.experiments.run_spec import Label, RunSpec

ENDED = ("done", "diverged")
"""Statuses after which a run's numbers do not change any more."""


class Row(Protocol):
    """What is read from a store about one run."""

    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102
    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def total_steps(self) -> int: ...  # noqa: D102
    @property
    def environment(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def summary(self) -> Mapping[str, Any]: ...  # noqa: D102


@dataclass(frozen=True)
class Curve:
    """What one run recorded under one key.

    Attributes:
        steps: Ascending.
        values: One a step.
        total_steps: Steps of the whole run, so that a fraction of training can be told.
    """

    steps: Sequence[float]
    values: Sequence[float]
    total_steps: float

    @property
    def fractions(self) -> list[float]:
        """The steps as fractions of the whole run."""
        return [step / self.total_steps for step in self.steps] if self.total_steps else []


class Results:
    """The runs of one experiment at one budget, with what they recorded so far.

    Runs that are missing, waiting or still going are part of it: charts draw what is there, claims wait.

    Attributes:
        budget: The budget.
        specs: The labelled runs.
        runs: One row a run, indexed by run id: the labels, status (``missing`` when the store has never seen it),
            reason, step and total_steps.
        environments: What each started run ran on, by run id.
        summaries: What each run said at its end, by run id; empty before.
    """

    def __init__(
        self,
        specs: Iterable[RunSpec],
        rows: Mapping[str, Row],
        fetch: Callable[[list[str]], pd.DataFrame],
        *,
        budget: str,
    ) -> None:
        """Join labels with what is known about the runs.

        Args:
            specs: The labelled runs.
            rows: What the store knows, by run id.
            fetch: Gives the records of some keys: columns run, step, key, value.
            budget: The budget the runs belong to.
        """
        import pandas as pd

        self.budget = budget
        self.specs = tuple(specs)
        self._fetch = fetch
        self._cache: dict[str, pd.DataFrame] = {}
        self._curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
        self._status: dict[str, str] = {}
        self._step: dict[str, int] = {}
        self._total: dict[str, int] = {}
        labelled = {spec.id: spec.labels for spec in self.specs}
        known = []
        for run, labels in labelled.items():
            row = rows.get(run)
            state = (row.status, row.reason, row.step, row.total_steps) if row else ("missing", "", 0, 0)
            self._status[run], self._step[run], self._total[run] = state[0], state[2], state[3]
            known.append({"run": run, **labels, **dict(zip(_STATE, state, strict=True))})
        self.runs = pd.DataFrame(known, columns=None if known else ["run", "seed", *_STATE]).set_index("run")
        self.labels = [name for name in self.runs.columns if name not in _STATE]
        self.environments = {run: dict(rows[run].environment) for run in labelled if run in rows}
        self.summaries = {run: dict(rows[run].summary) for run in labelled if run in rows}

    @classmethod
    def from_store(cls, specs: Sequence[RunSpec], store: Any, *, budget: str) -> Results:
        """Read the runs of a plan from a store.

        Args:
            specs: The labelled runs.
            store: A ``decaylab.store.store.Store``.
            budget: The budget the runs belong to.
        """
        ids = [spec.id for spec in specs]
        rows = {row.id: row for row in store.rows(ids)}
        return cls(specs, rows, lambda keys: store.table(ids, keys=keys), budget=budget)

    @property
    def complete(self) -> bool:
        """Whether every run has ended."""
        return bool(self.runs["status"].isin(ENDED).all())

    def metric(self, key: str) -> pd.DataFrame:
        """Return everything recorded under a key.

        Returns:
            One row a record: run, the labels, status, step, epoch (NaN where there are none), fraction of the run, and
            value; ordered by run and step.
        """
        if key not in self._cache:
            self._cache[key] = self._labelled(self._fetch([key]))
        return self._cache[key].copy()

    def table(self, *keys: str) -> pd.DataFrame:
        """Return several keys side by side: one row for each (run, step) at which all of them were recorded."""
        first, *others = keys
        wide = self.metric(first).rename(columns={"value": first})
        for key in others:
            more = self.metric(key)[["run", "step", "value"]].rename(columns={"value": key})
            wide = wide.merge(more, on=["run", "step"])
        return wide

    def final(self, key: str) -> pd.DataFrame:
        """Return the last record of every run that has ended, one row a run."""
        frame = self.metric(key)
        return frame[frame["status"].isin(ENDED)].groupby("run", sort=False).tail(1).reset_index(drop=True)

    def at(self, key: str, fraction: float) -> pd.DataFrame:
        """Return the last record at or before a fraction of the run, for every run that has come so far."""
        frame = self.metric(key)
        frame = frame[(frame["fraction"] <= fraction + 1e-9) & (self._reached(frame["run"]) >= fraction - 1e-9)]
        return frame.groupby("run", sort=False).tail(1).reset_index(drop=True)

    def matching(self, where: Mapping[str, Label]) -> pd.DataFrame:
        """Return the rows of ``runs`` that carry some labels.

        Raises:
            ValueError: A label that these runs do not have, or a value that none of them has: a slip in a declaration.
        """
        chosen = self.runs
        for name, value in where.items():
            if name not in self.labels:
                raise ValueError(f"no label {name!r} among {self.labels}")
            same = [same_label(v, value) for v in chosen[name]]
            if not any(same):
                raise ValueError(f"no run with {name}={value!r} among {sorted(set(chosen[name]), key=str)}")
            chosen = chosen[same]
        return chosen

    def runs_with(self, where: Mapping[str, Label]) -> list[str]:
        """Return the runs that carry some labels; see ``matching``."""
        return list(self.matching(where).index)

    def values_of(self, label: str, where: Mapping[str, Label]) -> list[Label]:
        """Return the values of a label among the runs that carry some labels; see ``matching``."""
        return list(dict.fromkeys(self.matching(where)[label]))

    def by_seed(self, where: Mapping[str, Label]) -> dict[Label, str]:
        """Return the run of each seed under some labels, seeds ascending.

        Raises:
            ValueError: More than one run for a seed: the labels leave something open.
        """
        chosen = self.matching(where)
        if chosen["seed"].duplicated().any():
            varying = [n for n in self.labels if n != "seed" and chosen[n].nunique() > 1]
            raise ValueError(f"labels {dict(where)} leave {varying} open: several runs for one seed")
        return dict(sorted(zip(chosen["seed"], chosen.index, strict=True)))

    def curve(self, run: str, key: str) -> Curve:
        """Return what one run recorded under a key, also while it is going on."""
        if key not in self._curves:
            groups = self.metric(key).groupby("run", sort=False)
            self._curves[key] = {str(r): (rows["step"].tolist(), rows["value"].tolist()) for r, rows in groups}
        steps, values = self._curves[key].get(run, ([], []))
        return Curve(steps, values, self._total[run] or max(steps, default=0.0))

    def ended(self, run: str) -> bool:
        """Whether a run has ended: done or diverged."""
        return self._status[run] in ENDED

    def diverged(self, run: str) -> bool:
        """Whether a run has ended by diverging."""
        return self._status[run] == "diverged"

    def reached(self, run: str) -> float:
        """The fraction of its steps that a run has done; all of them for one that is done."""
        if self._status[run] == "done":
            return 1.0
        return self._step[run] / self._total[run] if self._total[run] > 0 else 0.0

    def _labelled(self, records: pd.DataFrame) -> pd.DataFrame:
        labels = self.runs.drop(columns=["reason", "step"]).reset_index()
        frame = records[["run", "step", "value"]].astype({"run": labels["run"].dtype}).merge(labels, on="run")
        longest = frame.groupby("run")["step"].transform("max")
        total = frame["total_steps"].where(frame["total_steps"] > 0, longest)
        frame["fraction"] = frame["step"] / total
        frame["epoch"] = (frame["step"] * frame["run"].map(self._epochs_a_step()).astype(float)).round(9)
        order = {run: position for position, run in enumerate(self.runs.index)}
        frame = frame.sort_values(["run", "step"], key=lambda c: c.map(order) if c.name == "run" else c, kind="stable")
        return frame[["run", *self.labels, "status", "step", "epoch", "fraction", "value"]].reset_index(drop=True)

    def _epochs_a_step(self) -> dict[str, float]:
        """Epochs are proportional to steps; one record a run tells the ratio. Language runs have none."""
        if "epoch" not in self._cache:
            self._cache["epoch"] = self._fetch(["epoch"])
        records = self._cache["epoch"]
        last = records[records["step"] > 0].groupby("run").tail(1)
        return {r: v / s for r, s, v in zip(last["run"], last["step"], last["value"], strict=True)}

    def _reached(self, runs: pd.Series[Any]) -> pd.Series[Any]:
        return runs.map({run: self.reached(run) for run in self._status}).astype(float)


_STATE = ("status", "reason", "step", "total_steps")


def same_label(a: object, b: object) -> bool:
    """Whether two labels are the same: texts, or numbers up to their rounding."""
    if isinstance(a, str) or isinstance(b, str) or a is None or b is None:
        return a == b
    return math.isclose(float(a), float(b), rel_tol=1e-9)  # type: ignore[arg-type]
