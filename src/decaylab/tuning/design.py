"""The design of a search: lengths of its rungs, candidates on each, seeds, and what they cost in full runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from decaylab.errors import DecaylabError
from decaylab.tuning import coordinates

FARTHEST = 16  # a full run is at most this many times as long as the longest rung
CENTRE = 2.0  # timescales: between Wang and Aitchison's one to all epochs, and the planning runs' 2 to 3
SPACING = 3.0
_FIRST = (1 / 9, 1 / 3, 1.0, 3.0)  # of CENTRE, on the first rung
_LATER = (1 / 3, 1.0, 3.0)  # of the present estimate
CONTRACT_RUNS = 4.5  # of the first rung's length, before the search: see `contract`
_NEAR = 1.6  # candidates closer than this factor are one


@dataclass(frozen=True, kw_only=True)
class Rung:
    """Complete runs of one length.

    Attributes:
        steps: Length of their whole schedule.
        share: Of the full run's length.
    """

    steps: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Design:
    """What will be trained.

    Attributes:
        steps: Of the full run.
        rungs: The shortest first.
        seeds: Seeds of every setting.
        budget: Full runs that the search may cost.
    """

    steps: int
    rungs: tuple[Rung, ...]
    seeds: tuple[int, ...]
    budget: float

    def cost(self, first: int, later: int) -> float:
        """Return the full runs that the contract check and the rungs cost, with so many settings on each."""
        counts = [first, *[later] * (len(self.rungs) - 1)]
        trials = sum(r.share * n * len(self.seeds) for r, n in zip(self.rungs, counts, strict=True))
        return trials + CONTRACT_RUNS * self.rungs[0].share


def design(steps: int, budget: float, num_seeds: int, *, settings: tuple[int, int]) -> Design:
    """Choose the lengths: the longest rungs that the budget pays for.

    Args:
        steps: Of the full run.
        budget: In full runs.
        num_seeds: Seeds of every setting.
        settings: Settings on the first rung and on each later one.

    Raises:
        DecaylabError: The budget or the run is too short for any.
    """
    found = None
    for longest in (4, 8, 16):
        shares = [1 / (4 * longest), 1 / (2 * longest), 1 / longest]
        rungs = tuple(Rung(steps=round(steps * s), share=s) for s in shares)
        found = Design(steps=steps, rungs=rungs, seeds=tuple(range(num_seeds)), budget=budget)
        if found.cost(*settings) <= budget:
            break
    assert found is not None
    if found.cost(*settings) > budget:
        raise DecaylabError(
            f"a search with {num_seeds} seeds costs at least {found.cost(*settings):.2g} full runs (schedules of a "
            f"{FARTHEST}th of the run and shorter), the budget is {budget:g}: raise --budget, or lower --seeds"
        )
    if found.rungs[0].steps < 20:
        raise DecaylabError(
            f"the shortest rung would have {found.rungs[0].steps} steps, of {steps:,}: a run this short is tuned "
            "faster by a plain sweep"
        )
    return found


def first_candidates(lr: float, rung: Rung, mean: float, kept: Iterable[float]) -> list[float]:
    """Return the weight decays of the first rung: 0, a grid of timescales, and the values that are always tried.

    Args:
        lr: Peak learning rate.
        rung: The rung.
        mean: Of the schedule, in units of the peak.
        kept: The present value and other values that stay in where they lie within the range of the grid.
    """
    grid = [coordinates.weight_decay(CENTRE * f, lr, rung.steps, mean) for f in _FIRST]
    return _merged(grid, kept)


def later_candidates(centre: float, lr: float, rung: Rung, mean: float, kept: Iterable[float]) -> list[float]:
    """Return the weight decays of a later rung: 0 and a grid around the estimate (in timescales) for its length."""
    grid = [coordinates.weight_decay(centre * f, lr, rung.steps, mean) for f in _LATER]
    return _merged(grid, kept)


def _merged(grid: Sequence[float], kept: Iterable[float]) -> list[float]:
    low, high = min(grid) / SPACING, max(grid) * SPACING
    fixed = sorted({k for k in kept if low <= k <= high})
    free = [g for g in grid if all(max(g / k, k / g) > _NEAR for k in fixed)]
    return [0.0, *(float(f"{value:.4g}") for value in sorted({*fixed, *free}))]


def spread(low: float, high: float, number: int) -> list[float]:
    """Return values from low to high, evenly spaced in the logarithm."""
    if number == 1 or low == high:
        return [math.sqrt(low * high)]
    return [float(f"{low * (high / low) ** (i / (number - 1)):.4g}") for i in range(number)]
