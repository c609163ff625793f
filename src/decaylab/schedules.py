"""What the learning rate, or the strength of a decay rule, is at a step: pure functions of the step.

A step is the 0-based index of an update; a run of ``total_steps`` updates has the steps 0 .. total_steps - 1. Nothing
here keeps state, so a resumed run and an uninterrupted one agree bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from decaylab.errors import DecaylabError, unknown

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Kind = Literal["constant", "cosine", "linear", "two_phase", "step", "wsd"]
_WSD_FALLS = 0.8  # share of the run after which wsd's learning rate falls: the last fifth is the usual choice
DecayKind = Literal["constant", "with_lr", "cosine_to_zero", "early_only", "step"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A learning-rate schedule; with a peak and a number of steps it gives the learning rate of every step.

    Every kind starts with a linear warm-up, ``lr(t) = peak * t / warmup_steps`` for ``t < warmup_steps`` (so step 0 has
    learning rate 0, as in the GPT-2 runs of the paper). With r the progress from the end of the warm-up (0) to
    ``decay_steps`` (1) and f the final learning rate, it goes on with

    - ``constant``: peak;
    - ``cosine``: f + (peak - f) (1 + cos(pi r)) / 2, then f;
    - ``linear``: f + (peak - f) (1 - r), then f;
    - ``two_phase``: peak, and f from the fraction ``drop_at[0]`` of the run on;
    - ``step``: peak times ``drop_factor`` to the power of the number of fractions in ``drop_at`` already passed;
    - ``wsd`` (warm-up, stable, decay): peak, and from the fraction ``drop_at[0]`` of the run on (0.8 by default) a line
      down to f at the run's end.
    """

    kind: Kind = "constant"
    """Shape after the warm-up."""
    warmup_steps: int = 0
    """Steps of linear warm-up from 0."""
    decay_steps: int | None = None
    """Step at which cosine or linear reaches the final learning rate, warm-up included; the run's length by default."""
    final_ratio: float | None = None
    """Final learning rate as a share of the peak; by default 0.1 for cosine and 0 for linear and wsd."""
    final_lr: float | None = None
    """Final learning rate itself, instead of final_ratio."""
    drop_at: tuple[float, ...] = ()
    """Fractions of the run at which the learning rate drops (two_phase: one, step: any number) or begins to (wsd)."""
    drop_factor: float = 0.1
    """What a drop of kind step multiplies the learning rate by."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise unknown("schedule", str(self.kind), get_args(Kind))
        if self.warmup_steps < 0:
            raise DecaylabError(f"warmup_steps must not be negative, got {self.warmup_steps}")
        if self.decay_steps is not None and self.kind not in ("cosine", "linear"):
            raise DecaylabError(f"decay_steps is for cosine and linear, not for {self.kind}: leave it out")
        if self.decay_steps is not None and self.decay_steps < max(self.warmup_steps, 1):
            raise DecaylabError(
                f"decay_steps ({self.decay_steps}) must not be below warmup_steps ({self.warmup_steps})"
            )
        has_final = self.final_ratio is not None or self.final_lr is not None
        if self.final_ratio is not None and self.final_lr is not None:
            raise DecaylabError("give final_ratio or final_lr, not both")
        if self.kind in ("constant", "step") and has_final:
            raise DecaylabError(
                f"a {self.kind} schedule has no final learning rate: leave final_ratio and final_lr out"
            )
        for name, number in (("final_ratio", self.final_ratio), ("final_lr", self.final_lr)):
            if number is not None and not (0 <= number < math.inf):
                raise DecaylabError(f"{name} must be a finite number of at least 0, got {number}")
        if self.final_ratio is not None and self.final_ratio > 1:
            hint = f"; for {self.final_ratio:g} % write {self.final_ratio / 100:g}" if self.final_ratio <= 100 else ""
            raise DecaylabError(
                f"final_ratio is a share of the peak learning rate, at most 1, got {self.final_ratio:g}{hint}"
            )
        if self.kind == "two_phase" and (
            len(self.drop_at) != 1 or (self.final_ratio is None and self.final_lr is None)
        ):
            raise DecaylabError("two_phase needs one fraction in drop_at and the second learning rate in final_lr")
        if self.kind == "step" and not self.drop_at:
            raise DecaylabError("step needs the fractions of the run at which to drop in drop_at, such as (0.5, 0.75)")
        if self.kind == "wsd" and len(self.drop_at) > 1:
            raise DecaylabError("wsd takes one fraction in drop_at: where the learning rate begins to fall")
        if self.kind not in ("two_phase", "step", "wsd") and self.drop_at:
            raise DecaylabError(f"drop_at is for two_phase, step and wsd, not for {self.kind}: leave it out")
        _check_fractions(self.drop_at)
        if not 0 < self.drop_factor <= 1:
            raise DecaylabError(f"drop_factor must be above 0 and at most 1, got {self.drop_factor}")

    def final(self, peak: float) -> float:
        """Return the learning rate that the schedule ends on, for cosine, linear, two_phase and wsd."""
        if self.final_lr is not None:
            return self.final_lr
        return peak * (self.final_ratio if self.final_ratio is not None else 0.1 if self.kind == "cosine" else 0.0)


@dataclass(frozen=True)
class _Piece:
    """The learning rate from step ``start`` on: from ``high`` to ``low`` over ``length`` steps in one shape."""

    start: int
    shape: Literal["flat", "ramp", "cosine", "linear"]
    high: float
    low: float = 0.0
    length: int = 1

    def at(self, step: Any, cos: Callable[[Any], Any]) -> Any:
        """Evaluate for a number (with math.cos) or an array (with numpy.cos): the one place with the formulas."""
        if self.shape == "flat":
            return self.high + 0.0 * step
        if self.shape == "ramp":  # multiplied before it is divided, the order of the paper's code: same bits
            return self.high * (step - self.start) / self.length
        progress = (step - self.start) / self.length
        share = 0.5 * (1.0 + cos(math.pi * progress)) if self.shape == "cosine" else 1.0 - progress
        return self.low + share * (self.high - self.low)


def _pieces(schedule: Schedule, peak: float, total_steps: int) -> list[_Piece]:
    warmup, final = schedule.warmup_steps, schedule.final(peak)
    pieces = [_Piece(0, "ramp", peak, length=warmup)] if warmup else []
    if schedule.kind in ("cosine", "linear"):
        end = total_steps if schedule.decay_steps is None else schedule.decay_steps
        if end < warmup:
            raise DecaylabError(f"the warm-up ({warmup} steps) is longer than the run ({end} steps): shorten it")
        if end > warmup:
            shape: Literal["cosine", "linear"] = "cosine" if schedule.kind == "cosine" else "linear"
            pieces.append(_Piece(warmup, shape, peak, final, end - warmup))
        return [*pieces, _Piece(end, "flat", final)]
    pieces.append(_Piece(warmup, "flat", peak))
    if schedule.kind == "wsd":
        start = max(warmup, round((schedule.drop_at[0] if schedule.drop_at else _WSD_FALLS) * total_steps))
        if start < total_steps:
            pieces.append(_Piece(start, "linear", peak, final, total_steps - start))
            pieces.append(_Piece(total_steps, "flat", final))
        return pieces
    for number, fraction in enumerate(schedule.drop_at, start=1):
        lower = final if schedule.kind == "two_phase" else peak * schedule.drop_factor**number
        pieces.append(_Piece(max(warmup, round(fraction * total_steps)), "flat", lower))
    return pieces


def value(schedule: Schedule, step: int, peak: float, total_steps: int) -> float:
    """Return the learning rate of one step.

    Args:
        schedule: The shape.
        step: 0-based index of the update; beyond the run's end the last value holds.
        peak: Learning rate at the end of the warm-up.
        total_steps: Number of updates of the run.

    Returns:
        The learning rate of that update.

    Raises:
        DecaylabError: The warm-up is longer than the decay, or the run has no steps.
    """
    _check_run(peak, total_steps)
    here = next(piece for piece in reversed(_pieces(schedule, peak, total_steps)) if piece.start <= step)
    return float(here.at(step, math.cos))


def values(
    schedule: Schedule, steps: Sequence[int] | npt.NDArray[np.int64], peak: float, total_steps: int
) -> npt.NDArray[np.float64]:
    """Return the learning rates of many steps at once; equal to :func:`value` up to one rounding of the cosine.

    Args:
        schedule: The shape.
        steps: 0-based indices, shape (n,).
        peak: Learning rate at the end of the warm-up.
        total_steps: Number of updates of the run.

    Returns:
        float64 array of shape (n,).
    """
    import numpy as np  # here, not above: the command line must stay quick where no array is needed

    _check_run(peak, total_steps)
    steps = np.asarray(steps, dtype=np.int64)
    lr = np.empty(steps.shape)
    for piece in _pieces(schedule, peak, total_steps):  # in order of start: a later piece overwrites
        mask = steps >= piece.start
        lr[mask] = piece.at(steps[mask], np.cos)
    return lr


def integral(schedule: Schedule, peak: float, total_steps: int, start: int = 0, stop: int | None = None) -> float:
    """Return the sum of the learning rates of the steps ``start <= t < stop``.

    Times lambda it is the number of decay timescales that a run goes through, the number to preserve when a recipe is
    made smaller.

    Args:
        schedule: The shape.
        peak: Learning rate at the end of the warm-up.
        total_steps: Number of updates of the run.
        start: First step counted.
        stop: First step not counted; the run's end by default.
    """
    import numpy as np

    steps = np.arange(start, total_steps if stop is None else stop)
    return float(values(schedule, steps, peak, total_steps).sum())


@dataclass(frozen=True, kw_only=True)
class DecaySchedule:
    """A schedule for the strength of a decay rule: a multiplier of lambda between 0 and 1, of its own.

    It comes on top of what the rule does: a rule that multiplies by the learning rate still does so.

    - ``constant``: 1;
    - ``with_lr``: lr(t) / peak lr;
    - ``cosine_to_zero``: (1 + cos(pi t / total_steps)) / 2;
    - ``early_only``: 1 before the fraction ``fraction`` of the run, then 0;
    - ``step``: ``drop_factor`` to the power of the number of fractions in ``drop_at`` already passed.
    """

    kind: DecayKind = "constant"
    """Shape over the run."""
    fraction: float = 0.5
    """early_only: the share of the run with decay."""
    drop_at: tuple[float, ...] = ()
    """step: fractions of the run at which the decay drops."""
    drop_factor: float = 0.1
    """step: what a drop multiplies the decay by; 0 switches it off."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(DecayKind):
            raise unknown("decay schedule", str(self.kind), get_args(DecayKind))
        if self.kind == "step" and not self.drop_at:
            raise DecaylabError("step needs the fractions of the run at which to drop in drop_at, such as (0.5, 0.75)")
        if self.kind != "step" and self.drop_at:
            raise DecaylabError(f"drop_at is for step, not for {self.kind}: leave it out")
        _check_fractions(self.drop_at)
        _check_fractions((self.fraction,))
        if not 0 <= self.drop_factor <= 1:
            raise DecaylabError(f"drop_factor must be between 0 and 1, got {self.drop_factor}")


def decay_multiplier(schedule: DecaySchedule, step: int, total_steps: int, lr_ratio: float | None = None) -> float:
    """Return what multiplies lambda at one step, between 0 and 1.

    Args:
        schedule: The shape.
        step: 0-based index of the update; beyond the run's end the last value holds.
        total_steps: Number of updates of the run.
        lr_ratio: Learning rate of this step over the peak; ``with_lr`` needs it, the others ignore it.

    Raises:
        DecaylabError: ``with_lr`` without ``lr_ratio``, or a run without steps.
    """
    _check_run(1.0, total_steps)
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "with_lr":
        if lr_ratio is None:
            raise DecaylabError("a decay that follows the learning rate needs lr_ratio = lr / peak lr")
        return min(max(lr_ratio, 0.0), 1.0)
    if schedule.kind == "cosine_to_zero":
        return 0.5 * (1.0 + math.cos(math.pi * min(step / total_steps, 1.0)))
    if schedule.kind == "early_only":
        return 1.0 if step < round(schedule.fraction * total_steps) else 0.0
    passed = sum(step >= round(fraction * total_steps) for fraction in schedule.drop_at)
    return schedule.drop_factor**passed if passed else 1.0


def _check_fractions(fractions: tuple[float, ...]) -> None:
    if fractions and all(1 < fraction <= 100 for fraction in fractions):
        written = ", ".join(f"{fraction / 100:g}" for fraction in fractions)
        raise DecaylabError(
            f"fractions of the run lie between 0 and 1, got {', '.join(f'{fraction:g}' for fraction in fractions)}; "
            f"for per cent write {written}"
        )
    if any(not 0 <= fraction <= 1 for fraction in fractions) or list(fractions) != sorted(fractions):
        raise DecaylabError(f"fractions of the run must rise between 0 and 1, got {', '.join(map(str, fractions))}")


def _check_run(peak: float, total_steps: int) -> None:
    if total_steps < 1:
        raise DecaylabError(f"a run needs at least one step, got {total_steps}")
    if not 0 <= peak < math.inf:
        raise DecaylabError(f"the learning rate must be a finite number of at least 0, got {peak}")
