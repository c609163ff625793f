"""What a lambda does in one run: shrinkage, timescale, equilibrium, and the same decay in every other convention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

from decaylab.conventions.equilibrium import Optimizer, RotationInputs, relative_update, rms_weight
from decaylab.conventions.length import RunSize, check_warmup, run_size
from decaylab.conventions.products import factor_per_step, same_total_decay, shrinkage
from decaylab.conventions.table import CONVENTIONS, Match, Setting, get, match, peak_decay
from decaylab.conventions.unit_checks import unit_notes
from decaylab.errors import DecaylabError, unknown
from decaylab.schedules import Schedule, value, values

_LEAST_DECAY = 1e-200  # a timescale of 1e200 steps: below, numbers overflow in some unit, and no run is that long
OWN_CONVENTION = {"adamw": "torch", "lion": "torch", "muon": "torch", "sgd": "l2"}
"""What torch's optimizer means by lambda: a key of ``CONVENTIONS``."""


@dataclass(frozen=True, kw_only=True)
class Equivalent:
    """The same decay, written in another convention."""

    convention: str
    """Key in ``CONVENTIONS``."""
    value: float | None
    """Lambda that decays the same at the peak; None where the convention cannot say it."""
    match: Match | None
    """How far it is the same away from the peak."""
    value_same_total: float | None
    """Lambda that shrinks a weight as much over the whole run."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The state of affairs at one step of the schedule."""

    step: int
    """0-based index of the update."""
    lr: float
    """Learning rate of the step."""
    factor_per_step: float
    """What a step's decay leaves of a weight."""
    timescale_steps: float | None
    """1 / decay per step: how many past updates a weight is an average of; None without decay."""
    timescale_share_of_run: float | None
    """The timescale over the length of the run."""
    timescale_epochs: float | None
    """The timescale in passes over the data, where they are known."""
    timescale_tokens: float | None
    """The timescale in tokens, where they are known."""
    half_life_steps: float | None
    """Steps after which decay alone would halve a weight."""
    relative_update_per_step: float | None
    """Update over weight at equilibrium; None where no closed form is known."""
    rotation_per_step_degrees: float | None
    """The same as an angle."""
    equilibrium_rms_weight: float | None
    """Root mean square of a weight at equilibrium, where it does not depend on the gradient's size."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a lambda means in one run. Units are in the names."""

    optimizer: str
    convention: str
    weight_decay: float
    schedule: Schedule
    betas: tuple[float, float] | None
    momentum: float | None
    size: RunSize
    peak: Moment
    """The first step at the peak learning rate."""
    end: Moment
    """The last step of the run."""
    total_shrinkage: float
    """What decay alone leaves of a weight over the whole run."""
    timescales_in_run: float
    """Sum over the steps of the decay per step: how many timescales the run goes through."""
    equivalents: tuple[Equivalent, ...]
    notes: tuple[str, ...] = ()
    """Where a size looks as if it were in another unit."""


def explain(
    *,
    optimizer: str = "adamw",
    lr: float,
    weight_decay: float,
    convention: str | None = None,
    schedule: Schedule | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    tokens: int | None = None,
    seq_len: int | None = None,
    dataset_size: int | None = None,
    epochs: float | None = None,
    betas: tuple[float, float] | None = None,
    momentum: float = 0.0,
    dampening: float = 0.0,
    tokens_rounding: float = 0.0,
) -> Explanation:
    """Explain what a weight decay does over a run, in every unit that the given sizes allow.

    With d_t = lambda * scale * s_t^power (see :mod:`decaylab.conventions.table`): factor per step 1 - d_t, timescale
    1 / d_t (Wang and Aitchison 2024), total shrinkage prod_t (1 - d_t), timescales in the run sum_t d_t, and the
    equilibrium of :mod:`decaylab.conventions.equilibrium`.

    Args:
        optimizer: ``adamw``, ``sgd``, ``lion`` or ``muon``.
        lr: Peak learning rate.
        weight_decay: Lambda.
        convention: What lambda means, a key of ``CONVENTIONS``; torch's own meaning for the optimizer by default.
        schedule: Learning rate by step; constant by default.
        steps: Updates of the run.
        batch_size: Sequences or examples per update.
        tokens: Tokens seen in the run.
        seq_len: Tokens per sequence.
        dataset_size: Examples in the data set.
        epochs: Passes over the data set; 1 is taken where only tokens are given.
        betas: Of AdamW ((0.9, 0.999) by default) or Lion ((0.9, 0.99)).
        momentum: Of SGD.
        dampening: Of SGD.
        tokens_rounding: Relative error that ``tokens`` may have because it was written as 3.26B.

    Returns:
        The explanation.

    Raises:
        DecaylabError: Impossible or contradicting settings.

    Examples:
        >>> run = explain(lr=4e-4, weight_decay=0.1, steps=33165)
        >>> round(run.peak.timescale_steps)
        25000
    """
    if optimizer == "adam":
        raise DecaylabError(
            "Adam's weight_decay is an L2 penalty, divided by the size of the gradient: what it removes per step "
            "cannot be known beforehand; use adamw, or torch's Adam(decoupled_weight_decay=True), which is the same"
        )
    if optimizer not in OWN_CONVENTION:
        raise unknown("optimizer", optimizer, OWN_CONVENTION)
    if not math.isfinite(weight_decay):
        raise DecaylabError(f"weight decay must be a finite number, got {weight_decay}")
    size = run_size(
        steps=steps,
        batch_size=batch_size,
        tokens=tokens,
        seq_len=seq_len,
        dataset_size=dataset_size,
        epochs=epochs,
        tokens_rounding=tokens_rounding,
    )
    if momentum and optimizer != "sgd":
        raise DecaylabError(f"momentum is SGD's: for {optimizer} give betas")
    setting = Setting(lr=lr, total_steps=size.steps, momentum=momentum, dampening=dampening)
    key = convention or OWN_CONVENTION[optimizer]
    own, schedule = get(key), schedule or Schedule()
    check_warmup(schedule.warmup_steps, size.steps)
    if own.through_momentum and optimizer != "sgd":
        raise DecaylabError(
            f"{key} is SGD's: {optimizer} divides the penalty's gradient by its size, so no decay follows"
        )
    decay = peak_decay(weight_decay, key, setting)
    if decay < 0:
        raise DecaylabError(f"weight decay {weight_decay:g} makes weights grow: turn its sign for {key}")
    if weight_decay and decay < _LEAST_DECAY:
        raise DecaylabError(
            f"weight decay {weight_decay:g} at a learning rate of {lr:g} removes less than {_LEAST_DECAY:g} of a "
            "weight in each step: no run feels it, so use 0"
        )
    if decay >= 1:
        raise DecaylabError(
            f"this decay removes {decay:.3g} times the weight in each step, so nothing is left: for {key}, "
            f"weight decay must stay well below {1 / own.scale(setting):.3g}"
        )
    import numpy as np

    multipliers = values(schedule, np.arange(size.steps), lr, size.steps) / lr
    if multipliers.max() > 1 + 1e-9:
        raise DecaylabError(f"the schedule rises to {lr * multipliers.max():.3g}, above the peak of {lr:.3g}: raise lr")
    if multipliers.max() == 0:
        raise DecaylabError("the learning rate is 0 at every step of this schedule: shorten the warm-up")
    rotation = RotationInputs(
        optimizer=cast(Optimizer, optimizer), betas=betas or _default_betas(optimizer), momentum=momentum
    )

    def moment(step: int) -> Moment:
        multiplier = value(schedule, step, lr, size.steps) / lr
        factor = factor_per_step(decay, multiplier, own, setting)
        step_decay = decay * multiplier**own.power
        return _moment(step, lr * multiplier, factor, step_decay, size, rotation)

    left = shrinkage(decay, multipliers, own, setting)
    flat = bool((multipliers == 1).all())
    return Explanation(
        optimizer=optimizer,
        convention=key,
        weight_decay=weight_decay,
        schedule=schedule,
        betas=rotation.betas if optimizer in ("adamw", "lion") else None,
        momentum=momentum if optimizer == "sgd" else None,
        size=size,
        peak=moment(int(multipliers.argmax())),
        end=moment(size.steps - 1),
        total_shrinkage=left,
        timescales_in_run=float((decay * multipliers**own.power).sum()),
        equivalents=tuple(_equivalent(key, other, decay, left, multipliers, setting, flat) for other in CONVENTIONS),
        notes=unit_notes(size),
    )


def _default_betas(optimizer: str) -> tuple[float, float]:
    return (0.9, 0.99) if optimizer == "lion" else (0.9, 0.999)


def _moment(step: int, lr: float, factor: float, decay: float, size: RunSize, rotation: RotationInputs) -> Moment:
    decay = decay if decay >= _LEAST_DECAY else 0.0
    timescale = 1 / decay if decay else None
    share = timescale / size.steps if timescale else None
    # Tokens given without a data set: a language model sees each once.
    epochs = size.epochs if size.epochs is not None else 1.0 if size.tokens is not None else None
    per_step = size.batch_size * size.seq_len if size.batch_size and size.seq_len else None
    relative = relative_update(decay, rotation) if decay else None
    return Moment(
        step=step,
        lr=lr,
        factor_per_step=factor,
        timescale_steps=timescale,
        timescale_share_of_run=share,
        timescale_epochs=share * epochs if share is not None and epochs is not None else None,
        timescale_tokens=timescale * per_step if timescale and per_step else None,
        half_life_steps=_half_life(factor, decay),
        relative_update_per_step=relative,
        rotation_per_step_degrees=math.degrees(relative) if relative is not None else None,
        equilibrium_rms_weight=rms_weight(decay, lr, rotation),
    )


def _half_life(factor: float, decay: float) -> float | None:
    if not decay:
        return None
    # A decay below the resolution of the factor (1 - 1e-17 is 1) still has a half-life.
    return -math.log(2) / (math.log(factor) if factor < 1 - 1e-9 else math.log1p(-decay))


def _equivalent(
    own: str, other: str, decay: float, left: float, multipliers: object, setting: Setting, flat: bool
) -> Equivalent:
    import numpy as np

    assert isinstance(multipliers, np.ndarray)
    target = get(other)
    scale = target.scale(setting)
    if not scale or not math.isfinite(decay / scale):  # at lr 1e-200, lr² is 0 to a computer
        return Equivalent(convention=other, value=None, match=None, value_same_total=None)
    kind = match(own, other, momentum=setting.momentum, schedule_is_flat=flat)
    total: float | None
    if kind == "exact":
        total = decay / scale
    elif target.through_momentum and setting.momentum:
        total = None  # no closed form, and the long-run value is as close as anyone needs
    else:
        same = same_total_decay(left, multipliers, target.power)
        total = same / scale if same is not None else None
    return Equivalent(convention=other, value=decay / scale, match=kind, value_same_total=total)
