"""The settings of a search: what the full run is, what is searched, and what it may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from decaylab.errors import DecaylabError
from decaylab.tuning import coordinates, design


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a search.

    Attributes:
        steps: Of the full run.
        lr: Peak learning rate, or the lowest and highest that are searched.
        weight_decay: The present value; always a candidate, and what a confirmation compares with.
        tune_weight_decay: Whether weight decay is searched; else it stays at the present value, and lr is searched.
        budget: Full runs that the search may cost.
        seeds: Seeds of every setting.
        schedule: Of the learning rate, for timescales: constant, cosine, linear, or its mean over its peak.
        epsilon: Differences of the metric below this count as none; half a per cent of it by default.
        confirm: Seeds of a confirmation at full length.
    """

    steps: int
    lr: float | tuple[float, float]
    weight_decay: float | None = None
    tune_weight_decay: bool = True
    budget: float = 6.0
    seeds: int = 3
    schedule: str = "constant"
    epsilon: float | None = None
    confirm: int = 0

    def __post_init__(self) -> None:
        low, high = self.lr if isinstance(self.lr, tuple) else (self.lr, self.lr)
        if not 0 < low <= high < math.inf:
            raise DecaylabError(f"the learning rate must be above 0, or a range such as 1e-4..1e-2, got {self.lr}")
        if self.seeds < 2:
            raise DecaylabError(f"--seeds must be at least 2: one seed shows no noise, got {self.seeds}")
        if self.weight_decay is not None and not 0 <= self.weight_decay < math.inf:
            raise DecaylabError(f"the present weight decay must be at least 0, got {self.weight_decay}")
        if not self.tune_weight_decay and (self.weight_decay is None or low == high):
            raise DecaylabError("with a fixed weight decay give its value and a range of learning rates to search")
        if not 0 < self.budget < math.inf:
            raise DecaylabError(f"the budget is a number of full runs above 0, got {self.budget}")
        coordinates.schedule_mean(self.schedule)

    @property
    def names(self) -> tuple[str, ...]:
        """The coordinates that are searched."""
        lr = ("lr",) if isinstance(self.lr, tuple) else ()
        return (*lr, "x") if self.tune_weight_decay else lr

    @property
    def peak(self) -> float:
        """The learning rate, or the geometric middle of its range."""
        return self.lr if isinstance(self.lr, float) else math.sqrt(self.lr[0] * self.lr[1])

    @property
    def mean(self) -> float:
        """The mean of the schedule over its peak."""
        return coordinates.schedule_mean(self.schedule)

    def decay(self, x: float, lr: float) -> float:
        """Return the weight decay of the full run at which x timescales pass."""
        return float(f"{coordinates.weight_decay(x, lr, self.steps, self.mean):.4g}")

    def coordinate(self, name: str, point: coordinates.Point) -> float:
        """Return ``lr`` or ``x`` of a trial, in the logarithm."""
        if name == "lr":
            return math.log(point.lr)
        return math.log(coordinates.timescales(point.weight_decay, point.lr, point.steps, self.mean))

    def lengths(self) -> design.Design:
        """Return the lengths of the rungs."""
        return design.design(self.steps, self.budget, self.seeds, settings=self._settings())

    def _settings(self) -> tuple[int, int]:
        """Return the number of settings of the first rung and of a later one."""
        if not self.tune_weight_decay:
            return 5, 3
        return (18, 12) if isinstance(self.lr, tuple) else (6, 4)

    def lines(self) -> list[str]:
        """Return what will be trained and what it costs, as the lines of a dry run."""
        found = self.lengths()
        said = [
            f"full run: {self.steps:,} steps; budget {self.budget:g} full runs, {self.seeds} seeds of every setting"
        ]
        first, later = self._settings()
        for number, rung in enumerate(found.rungs):
            settings = first if number == 0 else later
            cost = settings * rung.share * self.seeds
            said.append(
                f"T/{1 / rung.share:.0f}: about {settings} settings of {rung.steps:,} steps, {settings * self.seeds} "
                f"runs, {cost:.2f} full runs"
            )
        said.append(f"with the contract check about {found.cost(first, later):.2f} full runs, at most {self.budget:g}")
        longest = found.rungs[-1].share
        said.append(
            f"a rung decides differences of about t s sqrt(2 / {self.seeds}), s being the spread of a run within its "
            f"seed and setting; the answer is carried from T/{1 / longest:.0f} to T"
        )
        return said
