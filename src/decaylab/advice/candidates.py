"""Values of weight decay to try, each with what it does in the run that is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from decaylab.conventions.explanation import OWN_CONVENTION
from decaylab.conventions.products import shrinkage
from decaylab.conventions.reading import IDLE_TIMESCALES, STRONG_TIMESCALE
from decaylab.conventions.table import Convention, Setting, get, peak_decay
from decaylab.errors import DecaylabError
from decaylab.quantities import format_number
from decaylab.schedules import Schedule, values

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Verdict = Literal["none", "close to idle", "acts", "too strong"]
SPAN = (0.3, 1.0, 3.0)
"""Total timescales that a first sweep should cover: barely felt, the start half forgotten, the start forgotten."""
_ALIKE = 1.5  # two values closer than this factor are one


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One value, and what decay alone does with it in the run."""

    weight_decay: float
    timescales: float
    """Sum over the steps of the decay per step: how many timescales the run goes through."""
    removed: float
    """Share of a weight that decay alone removes over the run, 1 - prod_t (1 - d_t)."""
    verdict: Verdict
    """By the bounds of ``decaylab explain``."""
    because: str
    """Why this value."""


@dataclass(frozen=True, kw_only=True)
class DecayOfRun:
    """What every lambda does in one run, by the meaning that torch's optimizer gives it."""

    lr: float
    schedule: Schedule
    steps: int
    optimizer: str
    momentum: float = 0.0

    @cached_property
    def timescales_per_unit(self) -> float:
        """Timescales of the run at a lambda of 1."""
        return self._peak(1.0) * float((self._multipliers**self._convention.power).sum())

    @property
    def _convention(self) -> Convention:
        return get(OWN_CONVENTION[self.optimizer])

    @property
    def _setting(self) -> Setting:
        return Setting(lr=self.lr, total_steps=self.steps, momentum=self.momentum)

    @cached_property
    def _multipliers(self) -> npt.NDArray[np.float64]:
        import numpy as np

        return values(self.schedule, np.arange(self.steps), self.lr, self.steps) / self.lr

    def _peak(self, weight_decay: float) -> float:
        return peak_decay(weight_decay, OWN_CONVENTION[self.optimizer], self._setting)

    def stands(self, weight_decay: float) -> bool:
        """Tell whether something of a weight is left after a step."""
        return 0 <= self._peak(weight_decay) < 1

    def candidate(self, weight_decay: float, because: str) -> Candidate:
        """Return what a lambda does in this run.

        Args:
            weight_decay: Lambda, 0 or more.
            because: Why it is among the values.

        Raises:
            DecaylabError: So strong that nothing is left of a weight after a step.
        """
        decay = self._peak(weight_decay)
        if not self.stands(weight_decay):
            raise DecaylabError(f"weight decay {format_number(weight_decay)} leaves nothing of a weight in one step")
        count = decay * float((self._multipliers**self._convention.power).sum())
        left = shrinkage(decay, self._multipliers, self._convention, self._setting)
        verdict: Verdict = "acts"
        if decay * STRONG_TIMESCALE * (1 - 1e-9) > 1:
            verdict = "too strong"
        elif count < IDLE_TIMESCALES:
            verdict = "close to idle" if weight_decay else "none"
        return Candidate(
            weight_decay=weight_decay, timescales=count, removed=1 - left, verdict=verdict, because=because
        )


def choose(run: DecayOfRun, named: Mapping[float, str], *, span: bool) -> tuple[Candidate, ...]:
    """Choose the values to try.

    Args:
        run: The run.
        named: Values that somebody recommends, with the reason, the most important first.
        span: Whether values that pass 0.3, 1 and 3 timescales of the run are added where none is near.

    Returns:
        In rising order; values within a factor of 1.5 of a more important one are left out, and so are values that no
        run stands (a step that removes a whole weight) and, of those that are added, those that are too strong.
    """
    wanted = [(two_digits(value), because, True) for value, because in named.items()]
    if span:
        unit = run.timescales_per_unit
        words = "passes {} of this run"
        for passed in SPAN:
            count = f"{passed:g} timescale{'' if passed == 1 else 's'}"
            wanted.append((two_digits(passed / unit), words.format(count), False))
    chosen: list[Candidate] = []
    for value, because, is_named in wanted:
        near = any(
            one.weight_decay == value or (value and one.weight_decay and 1 / _ALIKE < value / one.weight_decay < _ALIKE)
            for one in chosen
        )
        if near or not run.stands(value):
            continue
        candidate = run.candidate(value, because)
        if is_named or candidate.verdict != "too strong":
            chosen.append(candidate)
    return tuple(sorted(chosen, key=lambda one: one.weight_decay))


def two_digits(number: float) -> float:
    """Round to the two digits that a value to try needs."""
    return float(f"{number:.2g}")
