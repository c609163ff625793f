"""What the identities share: the subject, where its decay enters, what its lambda means, and how exact it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from decaylab.conformance.entry import EXACT, SINGLE, Entry, Trace
from decaylab.conformance.finding import Finding
from decaylab.conformance.meaning import MEANINGS, OTHER_MEANINGS, Fit, Moment
from decaylab.conformance.reference import Constants
from decaylab.conformance.subject import Subject


@dataclass(frozen=True)
class Context:
    """See the module.

    Attributes:
        subject: The optimizer under test.
        traces: Steps with and without decay, under several settings.
        entry: Where the decay enters.
        fits: Every meaning of lambda with its error, the best first; empty where there is no share.
        factor: Where lambda is switched between lr λ and a fraction of it, that fraction.
        law: The power law that the shares follow, in words.
        law_error: Its largest error, in log.
        constants: The method's constants.
        random: Largest difference between two equal runs: not 0 for a method that draws random numbers.
        holds_decay: Whether the parameter groups hold lambda, so that a caller may change it there.
    """

    subject: Subject
    traces: Sequence[Trace]
    entry: Entry
    fits: Sequence[Fit]
    factor: float | None
    law: str
    law_error: float
    constants: Constants
    random: bool
    holds_decay: bool

    @property
    def tolerance(self) -> float:
        """Relative error that counts as equal."""
        allowed = MEANINGS[self.meaning].tolerance if self.meaning in MEANINGS else 0.0
        return max(SINGLE if self.entry.single else EXACT, allowed)

    @property
    def closeness(self) -> float:
        """Absolute error that counts as equal for weights of about 1 after a few steps."""
        if self.meaning in MEANINGS and MEANINGS[self.meaning].tolerance:
            return 1e-7
        return 1e-5 if self.entry.single else 1e-12

    @property
    def idle(self) -> bool:
        """Whether the first step does nothing (ADOPT's only sets its memory up)."""
        return not any((item.decayed[0] - item.old[0]).any() for item in self.traces)

    @property
    def meaning(self) -> str | None:
        """Key of the meaning that was found: in `MEANINGS`, or l2, trust_ratio, none; None where nothing fits."""
        if self.entry.kind in OTHER_MEANINGS:
            return self.entry.kind
        if self.fits and self.fits[0].step is None:
            return self.fits[0].key
        return "switched" if self.factor is not None else None

    def moment(
        self,
        index: int,
        *,
        lr: float,
        weight_decay: float,
        multipliers: Sequence[float],
        weight: Tensor,
        gradients: Sequence[Tensor],
    ) -> Moment:
        """What a share may depend on at step ``index`` (0 is the first)."""
        return moment(self.constants, index, lr, weight_decay, multipliers, weight, gradients)

    def share(self, at: Moment) -> float | None:
        """The share that the found meaning predicts; None where there is no such share."""
        return float(MEANINGS[self.meaning].share(at)) if self.meaning in MEANINGS else None


def moment(
    constants: Constants,
    index: int,
    lr: float,
    weight_decay: float,
    multipliers: Sequence[float],
    weight: Tensor,
    gradients: Sequence[Tensor],
) -> Moment:
    """Put together what a share may depend on at step ``index``."""
    return Moment(
        lr=lr * multipliers[index],
        lr_first=lr,
        lr_seen=lr * max(multipliers[: index + 1]),
        weight_decay=weight_decay,
        weight=weight,
        gradients=gradients[: index + 1],
        beta2=constants.betas[1],
        momentum=constants.momentum,
        dampening=constants.dampening,
    )


def holds(identity: str, text: str, **numbers: float) -> Finding:
    """An identity that holds."""
    return Finding(identity, "holds", text, numbers)


def broken(identity: str, text: str, **numbers: float) -> Finding:
    """An identity that broke."""
    return Finding(identity, "broken", text, numbers)


def skipped(identity: str, text: str) -> Finding:
    """An identity that does not apply."""
    return Finding(identity, "skipped", text)
