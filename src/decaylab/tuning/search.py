"""The search: contract check, rungs of complete short runs with a fit after each, verdict, confirmation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from decaylab.errors import DecaylabError
from decaylab.experiments.statistics import t_interval
from decaylab.files import data_home
from decaylab.quantities import format_number
from decaylab.tuning import command, contract, design, fit, verdict
from decaylab.tuning.answer import Answer, Interval, Trial
from decaylab.tuning.coordinates import Point
from decaylab.tuning.metric import Metric
from decaylab.tuning.plan import Plan
from decaylab.tuning.record import open_record
from decaylab.tuning.trials import CalledTrials, LaunchedTrials, Result, Trials

USUAL = 0.1  # what most scripts have, so always a candidate
_MOST_EXTENSIONS = 2
_FEWEST = 3  # settings of a rung
_WIDE = math.log(30)  # an estimate with a wider interval starts the next rung from the whole range again
_FRESH = 1000  # first seed of a confirmation


def tune(
    objective: Callable[..., Any] | Sequence[str] | str,
    *,
    steps: int,
    lr: float | tuple[float, float],
    weight_decay: float | None = None,
    metric: Metric | None = None,
    storage: str | Path | None = None,
    name: str = "tune",
    store: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    timeout: float | None = None,
    say: Callable[[str], None] = print,
    progress: bool = False,
    **settings: Any,
) -> Answer:
    """Find the weight decay of a training from complete short runs of it.

    Args:
        objective: A function ``f(weight_decay, lr, steps, seed)`` that trains and returns the loss (or yields (step,
            loss)); or the words of a command with the placeholders {weight_decay}, {lr}, {steps}, {seed} and {out}; or
            ``"package.module:function"``, which workers of their own call.
        steps: Length of the full run.
        lr: Its peak learning rate, or a range (low, high) to search.
        weight_decay: Its present weight decay, if there is one.
        metric: Where a command's metric is read; by default ``loss`` in the last JSON line of its output.
        storage: Optuna's journal, or the URL of its database; in decaylab's data folder by default.
        name: Of the study.
        store: decaylab's store for the trials of a command.
        workers: Trials at the same time; one on a CPU and one a GPU by default.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        timeout: Seconds that a trial may take.
        say: Called with a line as the search goes on.
        progress: Whether the launcher shows its display.
        settings: Of the `decaylab.tuning.plan.Plan`.

    Returns:
        The answer.

    Raises:
        DecaylabError: The script breaks the contract, a trial failed twice, or the settings make no sense.
        Interrupted: Ctrl-C; the same call goes on.
    """
    plan = Plan(steps=steps, lr=lr, weight_decay=weight_decay, **settings)
    plan.lengths()  # a budget too small is said before anything is opened
    metric = metric or Metric()
    sign = -1.0 if metric.maximize else 1.0
    task: dict[str, Any] = {"metric": asdict(metric)}
    has_seed = True
    if isinstance(objective, str):
        task["function"] = objective
    elif not callable(objective):
        has_seed = "seed" in command.check(objective, lr_is_searched="lr" in plan.names)
        files = command.content_of_files(objective, Path.cwd())
        task |= {"command": list(objective), "cwd": str(Path.cwd()), "timeout": timeout, "files": files}
    place = storage if storage is not None else data_home() / "tune" / f"{name}.journal"
    with open_record(place, name, maximize=metric.maximize) as record:
        trials: Trials
        if callable(objective):
            trials = CalledTrials(objective, record, sign=sign)
        else:
            trials = LaunchedTrials(
                store, task, record, workers=workers, device=device, progress=progress, sign=sign
            )  # fmt: skip
        return Search(plan, trials, has_seed=has_seed, say=say).run()


class Search:
    """One search of a plan with some trials."""

    def __init__(self, plan: Plan, trials: Trials, *, has_seed: bool, say: Callable[[str], None]) -> None:
        self._plan, self._trials, self._has_seed, self._say = plan, trials, has_seed, say
        self._design = plan.lengths()
        self._rungs: list[list[Result]] = []
        self._results: dict[str, Result] = {}
        self._began = time.monotonic()
        self._predicted: float | None = None
        self._placed = 0  # rungs so far that have an optimum above no decay

    def run(self) -> Answer:
        """Search, and return the answer."""
        plan, first, seeds = self._plan, self._design.rungs[0], self._design.seeds
        number = len(contract.points(plan.peak, first.steps, plan.mean, seeds))
        self._say(f"contract: {number} runs of up to {first.steps:,} steps")
        found = contract.check(self._trials, plan.peak, first.steps, plan.mean, seeds, has_seed=self._has_seed)
        self._keep(found.results)
        if plan.tune_weight_decay and not found.reaches:
            return self._answer(verdict.unreached(plan), found)
        estimate: fit.Optimum | None = None
        for rung in self._design.rungs:
            estimate = self._climb(rung, estimate)
        assert estimate is not None
        answer = self._answer(verdict.decide(plan, estimate, self._rungs, self._predicted, found), found)
        return self._confirmed(answer) if plan.confirm else answer

    def _climb(self, rung: design.Rung, estimate: fit.Optimum | None) -> fit.Optimum:
        """Train a rung, and fit all rungs so far."""
        results = self._train(self._affordable(self._candidates(rung, estimate), rung), rung)
        for _ in range(_MOST_EXTENSIONS):
            more = self._beyond_the_edge(results, rung)
            if more is None:
                break
            results += self._train([more], rung)
        self._rungs.append(results)
        pairs = [(one, self._as_rung(one)) for one in self._rungs]
        # Where every decay is worse than none there is no minimum to place: a short run that has yet to overfit, say,
        # would put the longer ones' optimum near 0. All rungs count while there is no other.
        helped = [fitted for one, fitted in pairs if fitted is not None and self._decay_helps(one)]
        self._placed = len(helped)
        usable = helped or [fitted for _, fitted in pairs if fitted is not None]
        if not usable:
            raise DecaylabError(f"at {rung.steps:,} steps fewer than three settings ended with a number: lower --lr")
        now = fit.optimum(usable, self._plan.names)
        self._say(f"T/{1 / rung.share:.0f}: {len(results)} runs of {rung.steps:,} steps; {self._in_words(now)}")
        return now

    def _decay_helps(self, results: Sequence[Result]) -> bool:
        """Whether some decay's mean on a rung is below that of none; yes where there is no such comparison."""
        if self._plan.names != ("x",):
            return True
        means: dict[float, float] = {}
        for value in {r.point.weight_decay for r in results}:
            losses = [r.value for r in results if r.point.weight_decay == value]
            means[value] = math.fsum(losses) / len(losses)
        return 0.0 not in means or any(mean < means[0.0] for value, mean in means.items() if value > 0)

    def _candidates(self, rung: design.Rung, estimate: fit.Optimum | None) -> list[tuple[float, float]]:
        """Return pairs (lr, weight decay)."""
        plan = self._plan
        lrs, place = [plan.peak], None
        if estimate is not None and self._placed and not bool(np.any(estimate.high - estimate.low > _WIDE)):
            place = estimate.centre + estimate.drift[:, 0] * math.log(rung.share)
        if isinstance(plan.lr, tuple):
            low, high = plan.lr
            if place is not None:
                middle = float(np.clip(math.exp(place[0]), low, high))
                low, high = max(low, middle / 2), min(high, middle * 2)
            lrs = design.spread(low, high, 5 if place is None and not plan.tune_weight_decay else 3)
        if not plan.tune_weight_decay:
            return [(lr, plan.weight_decay or 0.0) for lr in lrs]
        self._predicted = None
        pairs = []
        for lr in lrs:
            if place is None:
                kept = [v for v in (plan.weight_decay, USUAL) if v]
                values = design.first_candidates(lr, rung, plan.mean, kept)
            else:
                values = design.later_candidates(math.exp(place[-1]), lr, rung, plan.mean, [])
                self._predicted = values[len(values) // 2] if len(lrs) == 1 else None
            pairs += [(lr, value) for value in values]
        return pairs

    def _affordable(self, settings: list[tuple[float, float]], rung: design.Rung) -> list[tuple[float, float]]:
        """Return the settings that the budget pays for, without the smallest decays above 0 and the largest ones."""
        left = list(settings)
        if self._plan.names != ("x",):
            return left
        while len(left) > _FEWEST and self._price(len(left), rung) > self._left_for(rung):
            inner = sorted(value for _, value in left if value > 0)
            left = [pair for pair in left if pair[1] != (inner[0] if len(left) % 2 else inner[-1])]
        return left

    def _left_for(self, rung: design.Rung) -> float:
        """Return the full runs that a rung may still cost, so that the later ones are paid for too."""
        later = math.fsum(self._price(_FEWEST, r) for r in self._design.rungs if r.steps > rung.steps)
        return self._plan.budget - self._spent() - later

    def _price(self, settings: int, rung: design.Rung) -> float:
        return settings * rung.share * len(self._design.seeds)

    def _train(self, settings: Sequence[tuple[float, float]], rung: design.Rung) -> list[Result]:
        points = [
            Point(weight_decay=value, lr=lr, steps=rung.steps, seed=seed)
            for lr, value in settings
            for seed in self._design.seeds
        ]
        results = self._trials.run(points)
        self._keep(results)
        return results

    def _beyond_the_edge(self, results: Sequence[Result], rung: design.Rung) -> tuple[float, float] | None:
        """Return one setting more where the best one lies at the end of the range, and the budget has it."""
        if self._plan.names != ("x",) or self._price(1, rung) > self._left_for(rung):
            return None
        lr = self._plan.peak
        values = {r.point.weight_decay for r in results}
        means = {v: float(np.mean([r.value for r in results if r.point.weight_decay == v])) for v in values}
        positive = sorted(v for v in means if v > 0)
        best = min(means, key=lambda v: means[v])
        if best == positive[-1] and best * design.SPACING * lr < 1:
            return lr, float(f"{best * design.SPACING:.4g}")
        if best == positive[0] and means[best] < means.get(0.0, math.inf):
            return lr, float(f"{best / design.SPACING:.4g}")
        return None

    def _as_rung(self, results: Sequence[Result]) -> fit.Rung | None:
        """Return the results of a rung in the coordinates of the fit; None where they are too few."""
        names = self._plan.names
        usable = [r for r in results if math.isfinite(r.value) and ("x" not in names or r.point.weight_decay > 0)]
        rows = [[self._plan.coordinate(name, r.point) for name in names] for r in usable]
        if len({tuple(row) for row in rows}) < 3:
            return None
        seeds = [r.point.seed if self._has_seed else 0 for r in usable]
        return fit.Rung(
            log_ratio=math.log(usable[0].point.steps / self._plan.steps),
            u=np.array(rows),
            seeds=np.array(seeds, dtype=np.int64),
            y=np.array([r.value for r in usable]),
        )

    def _confirmed(self, answer: Answer) -> Answer:
        """Compare the value with the present one at full length, with fresh seeds."""
        plan = self._plan
        present = plan.weight_decay or 0.0
        value, lr = answer.weight_decay.value, answer.lr.value
        if value is None or lr is None or (value == present and lr == plan.peak):
            return answer
        self._say(f"confirmation: {2 * plan.confirm} full runs with fresh seeds")
        points = [
            Point(weight_decay=decay, lr=rate, steps=plan.steps, seed=_FRESH + number)
            for decay, rate in ((value, lr), (present, plan.peak))
            for number in range(plan.confirm)
        ]
        results = self._trials.run(points)
        self._keep(results)
        new, old = results[: plan.confirm], results[plan.confirm :]
        mean, low, high = t_interval([a.value - b.value for a, b in zip(new, old, strict=True)])
        confirmation = Interval(value=mean, low=low, high=high)
        return replace(answer, confirmation=confirmation, cost=self._cost(), trials=self._listed())

    def _answer(self, decision: verdict.Decision, found: contract.Contract) -> Answer:
        return Answer(
            **{name: getattr(decision, name) for name in decision.__dataclass_fields__},
            steps=self._plan.steps,
            longest=max(r.point.steps for r in self._results.values()),
            cost=self._cost(),
            assumed=(*found.assumed, *self._assumptions()),
            warnings=found.warnings,
            trials=self._listed(),
        )

    def _assumptions(self) -> Iterator[str]:
        if self._plan.tune_weight_decay:
            yield f"the mean of the learning rate is {self._plan.mean:g} of its peak (--schedule)"
        if self._rungs:
            longest = self._design.rungs[-1].steps
            if self._plan.tune_weight_decay and self._placed < 2:
                yield (
                    f"how the optimum moves from {longest:,} to {self._plan.steps:,} steps: fewer than two lengths "
                    "show one, so its exponent is the prior's (a share of the run, or Power Lines), which many "
                    "epochs over the same few data may break; --confirm or a larger --budget would show it"
                )
            else:
                yield f"the optimum moves from {longest:,} to {self._plan.steps:,} steps as it did up to there"

    def _in_words(self, estimate: fit.Optimum) -> str:
        parts = []
        for i, name in enumerate(self._plan.names):
            found = verdict.coordinate(estimate, i)
            values = [v for v in (found.value, found.low, found.high) if v is not None]
            shown = [format_number(v if name == "lr" else self._plan.decay(v, self._plan.peak), 2) for v in values]
            what = "lr" if name == "lr" else "weight decay of the full run"
            parts.append(f"{what} about {shown[0]} [{shown[1]}, {shown[2]}]")
        return ", ".join(parts)

    def _keep(self, results: Sequence[Result]) -> None:
        self._results |= {r.run: r for r in results}

    def _spent(self) -> float:
        return math.fsum(r.point.steps for r in self._results.values()) / self._plan.steps

    def _cost(self) -> dict[str, float]:
        return {"full_runs": self._spent(), "seconds": time.monotonic() - self._began}

    def _listed(self) -> tuple[Trial, ...]:
        return tuple(
            Trial(
                run=r.run,
                weight_decay=r.point.weight_decay,
                lr=r.point.lr,
                steps=r.point.steps,
                seed=r.point.seed,
                value=r.value if math.isfinite(r.value) else None,
                status=r.status,
            )
            for r in self._results.values()
        )
