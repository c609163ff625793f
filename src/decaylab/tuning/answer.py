"""The answer of a search: weight decay with its interval, what is alike, what it cost, as data and sentence."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from decaylab.quantities import format_number

SCHEMA = 1
Range = tuple[float, float]
Verdict = Literal["found", "alike", "undecided", "reaches no weight"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval; None where nothing is known."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the best weight decay of a run of some length lies, with a 95 % interval."""

    steps: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial that ended."""

    run: str
    weight_decay: float
    lr: float
    steps: int
    seed: int
    value: float | None
    status: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a search found.

    Attributes:
        verdict: ``found``; ``alike`` (no decay is no worse than the best); ``undecided``; ``reaches no weight``.
        weight_decay: Value to use, with the 95 % predictive interval of the full run's optimum.
        lr: Learning rate to use, with its interval where it was searched.
        timescales: Of decay that pass in the full run at that value.
        exponent: a of: the best weight decay goes as T^-a.
        alike: Lowest and highest weight decay of the full run whose predicted loss is within epsilon of the best.
        epsilon: Differences below this count as none.
        gain: Of the value over no decay on the longest rung: mean with its 95 % interval (negative is better).
        steps: Of the full run.
        longest: Steps of the longest rung.
        cost: ``full_runs`` and ``seconds``.
        sentence: The answer in words.
        assumed: What was not measured.
        warnings: What a reader should know of this search.
        confirmation: Full-length runs with fresh seeds: value less present setting, mean with its 95 % interval.
        vertices: The best weight decay on each rung, from its own trials alone.
        band: The best weight decay by length as all rungs together predict it, up to the full run.
        trials: Every trial.
    """

    verdict: Verdict
    weight_decay: Interval
    lr: Interval
    timescales: Interval
    exponent: Interval
    alike: Range | None
    epsilon: float
    gain: Interval
    steps: int
    longest: int
    cost: dict[str, float]
    sentence: str
    assumed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    confirmation: Interval | None = None
    vertices: tuple[Place, ...] = ()
    band: tuple[Place, ...] = field(default=(), repr=False)
    trials: tuple[Trial, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as JSON values under a versioned schema; infinite ends are None."""
        return {"schema": SCHEMA, **_finite(asdict(self))}

    def as_json(self) -> str:
        """Return the answer as JSON."""
        return json.dumps(self.as_dict(), indent=1, allow_nan=False)

    def lines(self) -> list[str]:
        """Return the answer as the lines that a person reads."""
        said = [self.sentence]
        if self.exponent.value is not None:
            low, high = self.exponent.low, self.exponent.high
            said.append(
                f"the best weight decay went as steps^{-self.exponent.value:.2f} (95 %: {-(high or 0):.2f} to "
                f"{-(low or 0):.2f}); -1 is a constant share of the run, -0.47 Power Lines"
            )
        if self.confirmation is not None and self.confirmation.value is not None:
            said.append(f"at full length with fresh seeds: {_signed(self.confirmation)} against the present setting")
        said.append(f"cost: {self.cost['full_runs']:.2f} full runs, {self.cost['seconds']:.0f} s")
        said += [f"assumed: {text}" for text in self.assumed]
        said += [f"note: {text}" for text in self.warnings]
        return said


def found_sentence(value: Interval, x: Interval, alike: Range | None, gain: Interval, longest: int) -> str:
    """Say which weight decay to use."""
    return (
        f"use weight decay {_n(value.value)} (95 % interval {_n(value.low)} to {_n(value.high)}), {_n(x.value)} "
        f"timescales of decay in the run; {_alike(alike)}at {longest:,} steps it changed the loss by {_signed(gain)} "
        "against no decay"
    )


def alike_sentence(value: float, alike: Range | None, gain: Interval, epsilon: float, longest: int) -> str:
    """Say that decay does not matter, and how much at most."""
    top = "" if alike is None else f": 0 to {_n(alike[1])} are alike"
    return (
        f"decay does not lower the loss here{top}; at {longest:,} steps the best one changed it by {_signed(gain)} "
        f"against no decay, and differences below {_n(epsilon)} cannot be told apart; use {_n(value)}"
    )


def _alike(alike: Range | None) -> str:
    return "" if alike is None else f"{_n(alike[0])} to {_n(alike[1])} are alike; "


def _n(value: float | None) -> str:
    return "?" if value is None else format_number(value, 2)


def _signed(interval: Interval) -> str:
    if interval.value is None:
        return "an unknown amount"
    if interval.low is None or interval.high is None:
        return f"{interval.value:+.4f}"
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
