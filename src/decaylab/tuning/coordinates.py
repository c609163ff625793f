r"""Coordinates of the search: weight decay as the number of timescales that a run is long.

.. math:: x = \lambda \sum_t \eta_t = \lambda\,\eta\,T\,m

with the peak learning rate :math:`\eta`, the steps :math:`T` and the mean :math:`m` of the schedule over its peak. A
decoupled decay multiplies a weight by :math:`e^{-x}` over the run, whatever the updates do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from decaylab.errors import DecaylabError, unknown

# Mean of a schedule over its peak, without the warm-up: cosine and linear end at a tenth and at zero.
SCHEDULE_MEANS: Mapping[str, float] = {"constant": 1.0, "cosine": 0.55, "linear": 0.5}


@dataclass(frozen=True, kw_only=True)
class Point:
    """Settings of one trial.

    Attributes:
        weight_decay: Lambda, in the script's own convention.
        lr: Peak learning rate.
        steps: Length of the whole schedule.
        seed: Decides initialisation and data order.
        repeat: Above 0 for a second run of the very same settings, which shows how far a script repeats itself.
    """

    weight_decay: float
    lr: float
    steps: int
    seed: int
    repeat: int = 0

    def with_seed(self, seed: int) -> Point:
        """Return the same settings with another seed."""
        return replace(self, seed=seed)


def schedule_mean(schedule: str) -> float:
    """Return the mean of a schedule in units of its peak.

    Raises:
        DecaylabError: Neither a known schedule nor a number in (0, 1].
    """
    if schedule in SCHEDULE_MEANS:
        return SCHEDULE_MEANS[schedule]
    try:
        mean = float(schedule)
    except ValueError:
        raise unknown("schedule", schedule, SCHEDULE_MEANS) from None
    if not 0 < mean <= 1:
        raise DecaylabError(f"a schedule's mean over its peak lies between 0 and 1, it cannot be {mean:g}")
    return mean


def timescales(weight_decay: float, lr: float, steps: int, mean: float) -> float:
    """Return x, the timescales of decoupled decay that pass in a run.

    >>> timescales(0.1, 1e-3, 30_000, 1.0)
    3.0
    """
    return weight_decay * lr * steps * mean


def weight_decay(x: float, lr: float, steps: int, mean: float) -> float:
    """Return the weight decay at which x timescales pass in a run; the inverse of `timescales`."""
    return x / (lr * steps * mean)
