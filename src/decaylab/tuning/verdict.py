"""The verdict of a search: from the fit and the trials to an answer in data and words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from decaylab.quantities import format_number
from decaylab.tuning import conclude, coordinates
from decaylab.tuning.answer import Interval, Place, Range, Verdict, alike_sentence, found_sentence
from decaylab.tuning.contract import Contract
from decaylab.tuning.fit import Optimum
from decaylab.tuning.plan import Plan
from decaylab.tuning.trials import Result

NOTHING = Interval(value=None, low=None, high=None)
_UNDECIDED = math.log(100)  # an interval this wide is no answer


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What an `Answer` says beside its costs and trials, by the same names."""

    verdict: Verdict
    weight_decay: Interval
    lr: Interval
    sentence: str
    timescales: Interval = NOTHING
    exponent: Interval = NOTHING
    alike: Range | None = None
    gain: Interval = NOTHING
    epsilon: float = 0.0
    vertices: tuple[Place, ...] = ()
    band: tuple[Place, ...] = ()


def unreached(plan: Plan) -> Decision:
    """Say that a huge weight decay changed nothing."""
    return Decision(
        verdict="reaches no weight",
        weight_decay=NOTHING,
        lr=Interval(value=plan.peak, low=None, high=None),
        sentence="your weight decay reaches no weight: a huge one leaves the metric as it is; pass {weight_decay} on "
        "to the optimizer (`decaylab audit` shows which parameters decay)",
    )


def decide(
    plan: Plan, estimate: Optimum, rungs: Sequence[Sequence[Result]], predicted: float | None, found: Contract
) -> Decision:
    """Decide what a finished search says.

    Args:
        plan: What was searched.
        estimate: The fit of all rungs.
        rungs: Their results, the shortest rung first.
        predicted: The candidate of the longest rung at which the shorter ones put the optimum.
        found: What the contract check found.
    """
    values = {name: coordinate(estimate, i) for i, name in enumerate(plan.names)}
    lr = values.get("lr", Interval(value=plan.peak, low=None, high=None))
    if not plan.tune_weight_decay:
        words = (
            f"use lr {_n(lr.value)} (95 % interval {_n(lr.low)} to {_n(lr.high)}) at weight decay {plan.weight_decay:g}"
        )
        present = Interval(value=plan.weight_decay, low=None, high=None)
        return Decision(verdict="found", weight_decay=present, lr=lr, sentence=words)
    x = values["x"]
    assert lr.value is not None and x.value is not None and x.low is not None and x.high is not None
    rate = lr.value
    decay = Interval(value=plan.decay(x.value, rate), low=plan.decay(x.low, rate), high=plan.decay(x.high, rate))
    longest = rungs[-1]
    steps = longest[0].point.steps
    spread, freedom = conclude.noise(rungs, paired=found.paired)
    at = predicted if predicted is not None else _nearest(plan, estimate, longest)
    gain = conclude.gain(longest, at, spread, freedom, epsilon=plan.epsilon)
    bend = estimate.curvature[-1]
    half = math.sqrt(gain.epsilon / bend) if bend > 0 else math.inf
    alike = None
    if half < _UNDECIDED:
        alike = (plan.decay(x.value * math.exp(-half), rate), plan.decay(x.value * math.exp(half), rate))
    drift, low, high = (float(v) for v in estimate.drift[-1])
    common: dict[str, Any] = {
        "lr": lr,
        "exponent": Interval(value=1 - drift, low=1 - high, high=1 - low),
        "gain": gain.interval,
        "epsilon": gain.epsilon,
        "vertices": tuple(
            _place(plan, rate, round(plan.steps * math.exp(ratio)), *vertex)
            for ratio, vertex in zip(estimate.log_ratios, estimate.vertices, strict=True)
        ),
        "band": tuple(
            _place(plan, rate, round(plan.steps * math.exp(ratio)), *place) for ratio, *place in estimate.band
        ),
    }
    if gain.does_not_matter:
        top = decay.high if alike is None else alike[1]
        present_is_fine = plan.weight_decay is not None and top is not None and plan.weight_decay <= top
        value = plan.weight_decay if present_is_fine and plan.weight_decay is not None else 0.0
        alike = None if alike is None else (0.0, alike[1])
        words = alike_sentence(value, alike, gain.interval, gain.epsilon, steps)
        kept = Interval(value=value, low=0.0, high=top)
        return Decision(verdict="alike", weight_decay=kept, alike=alike, sentence=words, **common)
    common |= {"weight_decay": decay, "timescales": x, "alike": alike}
    if gain.helps and math.log(x.high / x.low) < _UNDECIDED:
        return Decision(verdict="found", sentence=found_sentence(decay, x, alike, gain.interval, steps), **common)
    words = (
        f"undecided: these runs leave a gain of {-gain.least:.2g} open and the optimum between {_n(decay.low)} and "
        f"{_n(decay.high)}; raise --budget or --seeds (present best guess {_n(decay.value)})"
    )
    return Decision(verdict="undecided", sentence=words, **common)


def _place(plan: Plan, lr: float, steps: int, value: float, low: float, high: float) -> Place:
    """Return a place in ln x as the weight decay of a run of that length."""
    found = [coordinates.weight_decay(math.exp(x), lr, steps, plan.mean) for x in (value, low, high)]
    return Place(steps=steps, value=found[0], low=found[1], high=found[2])


def coordinate(estimate: Optimum, i: int) -> Interval:
    """Return one coordinate of the full run's optimum, out of the logarithm."""
    value, low, high = (float(math.exp(e[i])) for e in (estimate.centre, estimate.low, estimate.high))
    return Interval(value=value, low=low, high=high)


def _nearest(plan: Plan, estimate: Optimum, longest: Sequence[Result]) -> float:
    """Return the weight decay of a rung that lies nearest to the fitted optimum."""
    share = longest[0].point.steps / plan.steps
    place = float(estimate.centre[-1] + estimate.drift[-1, 0] * math.log(share))
    points = [r.point for r in longest if r.point.weight_decay > 0]
    return min(points, key=lambda p: abs(plan.coordinate("x", p) - place)).weight_decay


def _n(value: float | None) -> str:
    return "?" if value is None else format_number(value, 2)
