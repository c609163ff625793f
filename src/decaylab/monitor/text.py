"""Words of a diagnosis: sentences, and a small table of the roles that decay."""

from __future__ import annotations

import math

from decaylab.monitor.diagnosis_result import Diagnosis, RoleState
from decaylab.monitor.formatting import angle, known, number, percent, steps, times
from decaylab.monitor.notes import names_of, notes
from decaylab.monitor.thresholds import (
    IDLE_TIMESCALES,
    NEAR_PREDICTION,
    SETTLED_TIMESCALES,
    STRONG_ROTATION,
    STRONG_TIMESCALE,
)

_COLUMNS = (
    ("role", "role"),
    ("norm", "norm"),
    ("norm_change", "change"),
    ("effective_lr", "effective LR"),
    ("rotation", "rad/step"),
    ("predicted", "in equilibrium"),
    ("share", "decay share"),
    ("timescale", "timescale"),
    ("passed", "passed"),
)


def describe(found: Diagnosis) -> str:
    """Put a diagnosis into sentences, followed by a small table of the roles that decay."""
    if found.verdict == "nothing recorded":
        return " ".join([_nothing_recorded(found), *notes(found.account)])
    sentences = {
        "not finite": _not_finite,
        "no gradients": _no_gradients,
        "no decay": _no_decay,
        "norm held": _norm_held,
        "anchored": _anchored,
        "unknown rate": _unknown_rate,
        "lost": _lost,
        "idle": _idle,
        "too strong": _too_strong,
        "settling": _settling,
        "equilibrium": _equilibrium,
        "annealing": _annealing,
    }[found.verdict](found, found.state)
    lines = [" ".join(s for s in [*sentences, *notes(found.account)] if s)]
    if found.roles:
        lines += ["", *_table(found)]
    return "\n".join(lines)


def _nothing_recorded(found: Diagnosis) -> str:
    name = found.account.optimizer
    if found.account.unseen:
        return (
            f"Nothing is recorded, although the weights have changed: the step() of this {name} was never called. Watch"
            " the optimizer whose step() the training calls (for a method that steps twice, its base optimizer)."
        )
    return "Nothing is recorded yet: the optimizer has not stepped since watch() was called."


def _not_finite(found: Diagnosis, state: RoleState) -> list[str]:
    return [
        f"The weights are not finite (NaN or infinite) since the record of step {found.broken:,}: the training has"
        " broken down, and nothing can be said about decay from there on."
    ]


def _no_gradients(found: Diagnosis, state: RoleState) -> list[str]:
    return [f"No parameter had a gradient: in {steps(found.steps)} the optimizer has moved none, and none has decayed."]


def _no_decay(found: Diagnosis, state: RoleState) -> list[str]:
    trend = "grown" if state.norm_change > 0 else "changed"
    return [
        "No weight decay is in force.",
        f"In {steps(found.steps)} the weight norm has {trend} by {percent(state.norm_change)}"
        f" and the effective LR is now {number(state.effective_lr)}{_since_first(found, state)}: without decay it"
        " follows the schedule and the growth of the norm alone."
        if known(state.norm_change, state.effective_lr)
        else "",
    ]


def _unknown_rate(found: Diagnosis, state: RoleState) -> list[str]:
    who = names_of(found.account, "zero")
    reasons = dict.fromkeys(s.reason for s in found.account.acting if s.target == "zero" and s.reason)
    why = "; ".join(reasons) or "it goes through the gradient of an adaptive optimizer (L2), or depends on the weights"
    return [
        f"Decay is in force{f' by {who}' if who else ''}, but not at a known rate per step ({why}). Timescale and"
        " equilibrium cannot be predicted.",
        _norm_so_far(found, state),
        _share(state),
    ]


def _norm_held(found: Diagnosis, state: RoleState) -> list[str]:
    return [
        f"The norm is held, bounded or steered by {names_of(found.account, 'norm')} in the place of decay, so there is"
        " no timescale.",
        _norm_so_far(found, state),
        _effective(found, state),
        _turns(state),
    ]


def _anchored(found: Diagnosis, state: RoleState) -> list[str]:
    return [
        f"{names_of(found.account, 'anchor')} pulls the weights back to an anchor, earlier weights, and not to zero:"
        " there is no timescale.",
        _norm_so_far(found, state),
        _effective(found, state),
        _turns(state),
    ]


def _lost(found: Diagnosis, state: RoleState) -> list[str]:
    return [
        f"The decay by {names_of(found.account, 'zero')} reaches no weight: it is lost to rounding.",
        _norm_so_far(found, state),
    ]


def _idle(found: Diagnosis, state: RoleState) -> list[str]:
    return [
        f"Decay is idle: the norms do not move ({percent(state.norm_change)} in {steps(found.steps)}), and only"
        f" {number(state.passed)} timescales have passed.",
        f"One timescale is {steps(state.timescale)}; in a run much shorter than that, decay does next to nothing.",
        _by_the_end(found, state),
        _share(state),
    ]


def _too_strong(found: Diagnosis, state: RoleState) -> list[str]:
    return [
        f"Decay is too strong: rotation above {STRONG_ROTATION:.2f} radians a step in the long run"
        f" ({angle(state.long_run_rotation)}). One timescale is {steps(state.timescale)}, so the weights hold no"
        f" more than the last {steps(state.timescale)} taught them: lower the decay or the learning rate.",
        _turns(state),
        f"{number(state.passed)} timescales have passed.",
        _effective(found, state),
    ]


def _settling(found: Diagnosis, state: RoleState) -> list[str]:
    parts = [
        f"Not yet in equilibrium: {number(state.passed)} timescales have passed (one is {steps(state.timescale)})."
    ]
    if state.passed < SETTLED_TIMESCALES:
        left = (SETTLED_TIMESCALES - state.passed) * state.timescale
        parts.append(
            f"At this learning rate it takes some {steps(left)} more."
            if math.isfinite(left)
            else "At a learning rate of zero it stays so."
        )
        parts.append(_by_the_end(found, state))
    if known(state.rotation, state.predicted) and state.predicted > 0:
        ratio = state.rotation / state.predicted
        where = "still shrinking towards it" if ratio < 1 else "still growing towards it"
        parts.append(
            f"A step turns the weights by {angle(state.rotation)}, {times(ratio)} what it will in"
            f" equilibrium: the norms are {where}."
        )
    return [*parts, _norm_so_far(found, state), _effective(found, state), _share(state)]


def _equilibrium(found: Diagnosis, state: RoleState) -> list[str]:
    parts = [
        f"Equilibrium reached: {number(state.passed)} timescales have passed (one is {steps(state.timescale)}) and"
        f" the norm of the decayed weights is steady at {number(state.norm)}, {percent(state.norm_change)} since the"
        " first record.",
        _effective(found, state),
    ]
    if known(state.rotation, state.predicted) and state.predicted > 0:
        ratio = state.rotation / state.predicted
        parts.append(
            f"A step turns the weights by {angle(state.rotation)}, {times(ratio)} the prediction from"
            " learning rate and decay."
        )
        if not 1 / NEAR_PREDICTION < ratio < NEAR_PREDICTION:
            parts.append(
                "It is off where updates are not at right angles to the weights (norm gains, biases, a head: the loss"
                " feels their size) or are correlated over many steps; see each role below."
            )
    return [*parts, _share(state)]


def _annealing(found: Diagnosis, state: RoleState) -> list[str]:
    peak = found.peak or state
    return [
        "Equilibrium was reached while the learning rate was high, and the learning rate has fallen since: one"
        f" timescale was {steps(peak.timescale)} and is now {steps(state.timescale)}."
        f" {number(state.passed)} have passed.",
        "Near the peak of the learning rate decay was too strong: a timescale under"
        f" {steps(STRONG_TIMESCALE)}, a rotation of {angle(peak.long_run_rotation)} a step in the long run."
        if found.strong_peak
        else "",
        f"The effective LR was {number(peak.effective_lr)} and is now {number(state.effective_lr)}; a step turned the"
        f" weights by {angle(peak.rotation)}, now by {angle(state.rotation)}.",
        _norm_so_far(found, state),
    ]


def _turns(state: RoleState) -> str:
    return f"A step turns the weights by {angle(state.rotation)}." if known(state.rotation) else ""


def _by_the_end(found: Diagnosis, state: RoleState) -> str:
    """What decay will have come to when the run ends, where its length is known."""
    total, done = found.account.total_steps, found.account.step
    if total is None or total <= done or not known(state.passed, state.timescale):
        return ""
    coming = state.passed + (total - done) / state.timescale
    if coming < IDLE_TIMESCALES:
        return (
            f"At this learning rate {number(coming)} timescales will have passed by step {total:,}: in this run decay"
            " will stay idle."
        )
    if coming < SETTLED_TIMESCALES:
        return (
            f"At this learning rate {number(coming)} timescales will have passed by step {total:,}: in this run"
            " equilibrium will not be reached."
        )
    return ""


def _norm_so_far(found: Diagnosis, state: RoleState) -> str:
    if not known(state.norm_change):
        return ""
    return f"The weight norm has changed by {percent(state.norm_change)} in {steps(found.steps)}."


def _effective(found: Diagnosis, state: RoleState) -> str:
    if not known(state.effective_lr):
        return ""
    return f"The effective LR is {number(state.effective_lr)}{_since_first(found, state)}."


def _since_first(found: Diagnosis, state: RoleState) -> str:
    if not math.isfinite(state.effective_lr_change):
        return ""
    if state.effective_lr_since == found.first:
        return f", {times(state.effective_lr_change)} the first record's"
    first = f"that of step {state.effective_lr_since:,.0f}, the first record with a positive one"
    return f", {times(state.effective_lr_change)} {first}"


def _share(state: RoleState) -> str:
    return f"{percent(state.share, sign=False)} of an update is decay." if known(state.share) else ""


def _table(found: Diagnosis) -> list[str]:
    rows = [[title for _, title in _COLUMNS]]
    for state in found.roles:
        cells = []
        for attribute, _ in _COLUMNS:
            value = getattr(state, attribute)
            if attribute == "role":
                cells.append(value)
            elif attribute in ("norm_change", "share"):
                cells.append(percent(value, sign=attribute == "norm_change"))
            else:
                cells.append(number(value))
        rows.append(cells)
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
