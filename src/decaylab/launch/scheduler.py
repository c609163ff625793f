"""Which run is trained next: the longest whose needs have ended, and what becomes of those whose needs never will."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decaylab.config.cost import cost, flops_per_step, needs, threads_hint
from decaylab.config.identity import run_id, to_dict
from decaylab.config.schema import AnyRun, LanguageRun, kind
from decaylab.errors import DecaylabError
from decaylab.references import file_reference
from decaylab.store.leases import Lease
from decaylab.store.records import State
from decaylab.store.store import Store
from decaylab.train.batched.grouping import MOST, company
from decaylab.train.preflight.inputs import with_content


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run to train.

    Attributes:
        id: Hash of the config.
        config: The frozen config as plain data.
        kind: ``vision``, ``language``, or the name of the function of the user's that trains it.
        cost: Relative length; only ratios matter, until the first measured rates give them a unit.
        threads_hint: Threads that it can use well on a CPU: ``None`` for one, 0 for all cores.
        needs: Ids of the runs that have to end before this one can start.
        company: What runs that can be trained side by side on a CPU have in common, see
            `decaylab.train.batched.grouping`.
        label: Name for the progress display; the id by default.
        tokens: Tokens a step, for the display; 0 where nothing of that name is trained on.
        flops: Floating-point operations a step, for the display; 0 where they are not counted.
    """

    id: str
    config: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "vision"
    cost: float = 1.0
    threads_hint: int | None = None
    needs: tuple[str, ...] = ()
    company: str | None = None
    label: str = ""
    tokens: int = 0
    flops: float = 0.0

    @classmethod
    def of(cls, config: AnyRun, *, label: str = "") -> Run:
        """Give the run of some settings, with what follows from them: its id, its cost, its needs.

        Raises:
            DecaylabError: A file that it reads is missing, or is not the one that its settings name by its digest.
        """
        config = with_content(config)
        return cls(
            id=run_id(config),
            config=to_dict(config),
            kind=kind(config),
            cost=cost(config),
            threads_hint=threads_hint(config),
            needs=needs(config),
            company=company(config, "cpu"),
            label=label,
            **_counts(config),
        )

    @classmethod
    def own(cls, id: str, config: Mapping[str, Any], *, trainer: str, label: str = "") -> Run:
        """Give a run that a function of the user's trains, of which nothing is known but its settings.

        Args:
            id: Hash of the config.
            config: The settings as JSON values.
            trainer: Reference to the function.
            label: Name for the progress display.
        """
        return cls(id=id, config=config, kind=file_reference(trainer), label=label)

    @property
    def name(self) -> str:
        """What the progress display calls it."""
        return self.label or f"{self.kind} {self.id[:8]}"


def _counts(config: AnyRun) -> dict[str, Any]:
    """Count what the display tells of a language run; of a vision model nobody knows the tokens."""
    if not isinstance(config, LanguageRun):
        return {}
    return {"tokens": config.batch_size * config.model.context, "flops": flops_per_step(config)}


class Queue:
    """The runs of one launch in the order in which workers take them; their states are the store's.

    Several workers, also of several launchers, hold the same queue: a lease decides who trains what.
    """

    def __init__(self, store: Store, runs: Iterable[Run]) -> None:
        """Order the runs.

        Raises:
            DecaylabError: Runs need each other in a circle.
        """
        self._store = store
        self._file: Path | None = None
        self._read = 0
        self._next: str | None = None
        self._together: dict[str, int] = {}
        self._order(runs)

    def _order(self, runs: Iterable[Run]) -> None:
        by_id = {run.id: run for run in runs}
        lengths = _lengths(by_id)
        self.runs = sorted(by_id.values(), key=lambda run: (-lengths[run.id], run.id))
        self._ids = [run.id for run in self.runs]
        self._watched = list(dict.fromkeys([*self._ids, *(need for run in self.runs for need in run.needs)]))

    def states(self) -> dict[str, State]:
        """Return how the runs and those that they need stand."""
        return self._store.states(self._watched)

    def take(
        self, worker: str, seconds: float, environment: Mapping[str, Any], *, several: bool = False
    ) -> list[Lease]:
        """Lease what can be trained now: the first run, and with ``several`` others that train beside it.

        Returns:
            The leases; none when there is nothing to train at the moment.
        """
        self._follow()
        states = self.give_up_blocked()
        taken: list[Lease] = []
        first: Run | None = None
        for run in self.runs:
            if first is not None and (run.company is None or run.company != first.company):
                continue
            state = states[run.id]
            if _is_settled(state) or state.alive or not all(states[need].is_ended for need in run.needs):
                continue
            lease = self._store.lease(run.id, worker, seconds, environment)
            if lease is not None:
                first = first or run
                taken.append(lease)
                if not several or run.company is None or len(taken) >= self._together.get(run.company, 1):
                    break
        return taken

    def is_settled(self, states: Mapping[str, State] | None = None) -> bool:
        """Whether every run has ended or failed."""
        states = self.states() if states is None else states
        return all(_is_settled(states[run_id]) for run_id in self._ids)

    def give_up_blocked(self) -> dict[str, State]:
        """Mark the runs failed whose needs will not end, and those that need these in turn; return the states."""
        states = self.states()
        found = True
        while found:
            found = False
            for run in self.runs:
                if not _is_settled(states[run.id]) and not states[run.id].alive:
                    reason = next(filter(None, (self._obstacle(need, states) for need in run.needs)), "")
                    if reason and self._store.give_up(run.id, reason):
                        states[run.id] = states[run.id]._replace(status="failed", reason=reason)
                        found = True
        return states

    def _obstacle(self, need: str, states: Mapping[str, State]) -> str:
        """Say why a needed run will not end; empty when it has or still may."""
        state = states.get(need)
        if state is None:
            return f"needs run {need}, which the store does not know"
        if state.status == "failed":
            return f"needs run {need}, which failed: {state.reason}"
        if need not in self._ids and not state.is_ended and not state.alive:
            return f"needs run {need}, which nobody trains: launch it too"
        return ""

    def to_json(self, workers: int, *, alone: Iterable[str] = ()) -> str:
        """Return what a worker needs to hold the same queue; the configs are in the store.

        Args:
            workers: How many workers will; runs that can be trained side by side are shared out among them. 0: each
                run is trained by itself.
            alone: Ids of runs that are trained by themselves all the same.
        """
        alone = set(alone)
        own = {run.id: None if run.id in alone else run.company for run in self.runs}
        counts = Counter(name for name in own.values() if name is not None) if workers else Counter[str]()
        # In as few rounds as will do, equally many for each worker in each.
        rounds = {name: -(-count // (workers * MOST)) for name, count in counts.items()}
        content = {
            "runs": [{"id": r.id, "cost": r.cost, "needs": r.needs, "company": own[r.id]} for r in self.runs],
            "together": {name: -(-count // (workers * rounds[name])) for name, count in counts.items()},
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, store: Store, text: str) -> Queue:
        """Return the queue of which `to_json` gave the text."""
        queue = cls(store, [])
        queue._replace(text)
        return queue

    @classmethod
    def from_file(cls, store: Store, path: Path) -> Queue:
        """Read a file with what `to_json` wrote; it is read again when it changes."""
        queue = cls(store, [])
        queue._file = path
        queue._follow()
        return queue

    def become(self, text: str) -> None:
        """Hold another queue, of which `to_json` gave the text, from the next `take` on; from any thread."""
        self._next = text

    def _follow(self) -> None:
        """Take over what the queue is to become, and what its file has become."""
        text, self._next = self._next, None
        if self._file is not None:
            changed = self._file.stat().st_mtime_ns
            if changed != self._read:
                self._read, text = changed, self._file.read_text()
        if text is not None:
            self._replace(text)

    def _replace(self, text: str) -> None:
        content = json.loads(text)
        self._order(Run(**{**item, "needs": tuple(item["needs"])}) for item in content["runs"])
        self._together = content["together"]


def _is_settled(state: State) -> bool:
    return state.is_ended or state.status == "failed"


def _lengths(runs: Mapping[str, Run]) -> dict[str, float]:
    """Return each run's cost plus that of the longest chain of runs that wait for it.

    Raises:
        DecaylabError: Runs need each other in a circle.
    """
    missing = {run.id: sum(need in runs for need in set(run.needs)) for run in runs.values()}
    dependants: dict[str, list[str]] = {name: [] for name in runs}
    for run in runs.values():
        for need in set(run.needs) & runs.keys():
            dependants[need].append(run.id)
    order = [name for name, count in missing.items() if count == 0]
    for name in order:  # grows while it is walked: a topological order
        for dependant in dependants[name]:
            missing[dependant] -= 1
            if missing[dependant] == 0:
                order.append(dependant)
    if len(order) < len(runs):
        circle = sorted(name for name, count in missing.items() if count)
        raise DecaylabError(f"these runs need each other, so none can start: {', '.join(circle)}")
    lengths: dict[str, float] = {}
    for name in reversed(order):
        lengths[name] = runs[name].cost + max((lengths[d] for d in dependants[name]), default=0.0)
    return lengths
