"""What a log knows beside its records: what decays, which parameters came or went, what failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch comes with them, which judging records does without
    from decaylab.probes.decay_account import DecaySource
    from decaylab.probes.watched_parameters import Change

_NEXT_TO_NOTHING = 0.01


@dataclass(frozen=True, kw_only=True)
class Account:
    """See the module.

    Attributes:
        sources: Everything that decays parameters, as it was in the last step.
        changes: Parameters that came or went.
        failures: First error of each probe and sink that failed, by name.
        optimizer: Name of the optimizer's class.
        unseen: The weights have changed, but the optimizer's ``step`` was never called.
        total_steps: Length of the run, where it is known.
        step: Steps so far.
    """

    sources: tuple[DecaySource, ...] = ()
    changes: tuple[Change, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    optimizer: str = ""
    unseen: bool = False
    total_steps: int | None = None
    step: int = 0

    @property
    def acting(self) -> tuple[DecaySource, ...]:
        """Sources that take weight from at least one parameter that a step has moved, or hold its norm."""
        return tuple(s for s in self.sources if s.moved and s.knowledge != "none")

    @property
    def is_lost(self) -> bool:
        """Whether all that pulls to zero is rounded away."""
        pulling = [source for source in self.acting if source.target == "zero"]
        return bool(pulling) and all(s.dtype and s.found <= _NEXT_TO_NOTHING * s.stated for s in pulling)

    @property
    def last_change(self) -> int | None:
        """Step since which the parameters are those of now; None where they always were."""
        return self.changes[-1].step if self.changes else None
