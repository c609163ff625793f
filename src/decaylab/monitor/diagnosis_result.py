"""Result of a diagnosis: state by role, verdict and the thresholds that decide it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from decaylab.monitor.account import Account
from decaylab.monitor.thresholds import STRONG_TIMESCALE

Verdict = Literal[
    "nothing recorded",
    "not finite",
    "no gradients",
    "no decay",
    "norm held",
    "anchored",
    "unknown rate",
    "lost",
    "idle",
    "too strong",
    "settling",
    "equilibrium",
    "annealing",
]


_ROUNDING = 1e-6  # of a timescale of float32 learning rates


@dataclass(frozen=True)
class RoleState:
    """Where the parameters of one role (or all that decay, role ``""``) are now.

    Attributes:
        role: The role.
        norm: Weight norm at the last record.
        norm_change: Its relative change since the first record.
        effective_lr: Effective learning rate at the last record.
        effective_lr_change: Its factor since the first record, or the first where it was positive (after a warm-up from
            0).
        effective_lr_since: Step of that record.
        rotation: Radians per step, mean over the window.
        predicted: Radians per step in equilibrium, mean over the window.
        share: Share of the update that is decay, mean over the window.
        timescale: Steps of one timescale at the last record.
        passed: Timescales passed.
        slope: Relative change of the norm per timescale in the window.
    """

    role: str
    norm: float = math.nan
    norm_change: float = math.nan
    effective_lr: float = math.nan
    effective_lr_change: float = math.nan
    effective_lr_since: float = math.nan
    rotation: float = math.nan
    predicted: float = math.nan
    share: float = math.nan
    timescale: float = math.nan
    passed: float = math.nan
    slope: float = math.nan

    @property
    def long_run_rotation(self) -> float:
        """Radians per step in equilibrium with momentum counted out, ``sqrt(2 c)``."""
        return math.sqrt(2 / self.timescale)


@dataclass(frozen=True)
class Diagnosis:
    """What decay is doing.

    Attributes:
        verdict: The case, from a fixed list.
        steps: Steps covered by the records.
        state: All parameters that decay, together.
        roles: Each role that decays.
        peak: All parameters that decay, when the learning rate was last near its peak; only for ``annealing``.
        first: Step of the first record.
        broken: Step of the first record with weights that are not finite; only for ``not finite``.
        account: What decays, and what happened beside the records.
    """

    verdict: Verdict
    steps: int = 0
    state: RoleState = field(default_factory=lambda: RoleState(""))
    roles: tuple[RoleState, ...] = ()
    peak: RoleState | None = None
    first: int = 0
    broken: int | None = None
    account: Account = field(default_factory=Account)

    @property
    def strong_peak(self) -> bool:
        """Whether decay was too strong while the learning rate was near its peak, and is no more."""
        return self.peak is not None and too_strong(self.peak)


def too_strong(state: RoleState) -> bool:
    """Whether a timescale is under `STRONG_TIMESCALE` steps."""
    return state.timescale < STRONG_TIMESCALE * (1 - _ROUNDING)
