"""How is a diagnosis said to a person?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from decaylab.monitor.thresholds import NEAR_PREDICTION, SETTLED_TIMESCALES, STRONG_ROTATION, STRONG_TIMESCALE

if TYPE_CHECKING:
    from decaylab.monitor.diagnosis_result import Diagnosis, RoleState

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
        return "Nothing is recorded yet: the optimizer has not stepped since watch() was called."
    sentences = {
        "not finite": _not_finite,
        "no gradients": _no_gradients,
        "no decay": _no_decay,
        "unknown rate": _unknown_rate,
        "idle": _idle,
        "too strong": _too_strong,
        "settling": _settling,
        "equilibrium": _equilibrium,
        "annealing": _annealing,
    }[found.verdict](found, found.state)
    lines = [" ".join(s for s in sentences if s)]
    if found.roles:
        lines += ["", *_table(found)]
    return "\n".join(lines)


def _not_finite(found: Diagnosis, state: RoleState) -> list[str]:
    return [
        f"The weights are not finite (NaN or infinite) since the record of step {found.broken:,}: the training has"
        " broken down, and nothing can be said about decay from there on."
    ]


def _no_gradients(found: Diagnosis, state: RoleState) -> list[str]:
    return [
        f"No parameter had a gradient: in {_steps(found.steps)} the optimizer has moved none, and none has decayed."
    ]


def _no_decay(found: Diagnosis, state: RoleState) -> list[str]:
    trend = "grown" if state.norm_change > 0 else "changed"
    return [
        "No weight decay is in force.",
        f"In {_steps(found.steps)} the weight norm has {trend} by {_percent(state.norm_change)}"
        f" and the effective LR is now {_number(state.effective_lr)}{_since_first(found, state)}: without decay it"
        " follows the schedule and the growth of the norm alone."
        if _known(state.norm_change, state.effective_lr)
        else "",
    ]


def _unknown_rate(found: Diagnosis, state: RoleState) -> list[str]:
    return [
        "Decay is in force, but not at a rate per step: it goes through the gradient of an adaptive optimizer (L2), or"
        " its rule takes a share that depends on the weights. Timescale and equilibrium cannot be predicted.",
        _norm_so_far(found, state),
        _share(state),
    ]


def _idle(found: Diagnosis, state: RoleState) -> list[str]:
    return [
        f"Decay is idle: the norms do not move ({_percent(state.norm_change)} in {_steps(found.steps)}), and only"
        f" {_number(state.passed)} timescales have passed.",
        f"One timescale is {_steps(state.timescale)}; in a run much shorter than that, decay does next to nothing.",
        _share(state),
    ]


def _too_strong(found: Diagnosis, state: RoleState) -> list[str]:
    return [
        f"Decay is too strong: rotation above {STRONG_ROTATION:.2f} radians a step in the long run"
        f" ({_number(state.long_run_rotation)}). One timescale is {_steps(state.timescale)}, so the weights hold no"
        f" more than the last {_steps(state.timescale)} taught them: lower the decay or the learning rate.",
        f"A step turns the weights by {_number(state.rotation)} radians." if _known(state.rotation) else "",
        f"{_number(state.passed)} timescales have passed.",
        _effective(found, state),
    ]


def _settling(found: Diagnosis, state: RoleState) -> list[str]:
    parts = [
        f"Not yet in equilibrium: {_number(state.passed)} timescales have passed (one is {_steps(state.timescale)})."
    ]
    if state.passed < SETTLED_TIMESCALES:
        left = (SETTLED_TIMESCALES - state.passed) * state.timescale
        parts.append(
            f"At this learning rate it takes some {_steps(left)} more."
            if math.isfinite(left)
            else "At a learning rate of zero it stays so."
        )
    if _known(state.rotation, state.predicted) and state.predicted > 0:
        ratio = state.rotation / state.predicted
        where = "still shrinking towards it" if ratio < 1 else "still growing towards it"
        parts.append(
            f"A step turns the weights by {_number(state.rotation)} radians, {_times(ratio)} what it will in"
            f" equilibrium: the norms are {where}."
        )
    return [*parts, _norm_so_far(found, state), _effective(found, state), _share(state)]


def _equilibrium(found: Diagnosis, state: RoleState) -> list[str]:
    parts = [
        f"Equilibrium reached: {_number(state.passed)} timescales have passed (one is {_steps(state.timescale)}) and"
        f" the norm of the decayed weights is steady at {_number(state.norm)}, {_percent(state.norm_change)} since the"
        " first record.",
        _effective(found, state),
    ]
    if _known(state.rotation, state.predicted) and state.predicted > 0:
        ratio = state.rotation / state.predicted
        parts.append(
            f"A step turns the weights by {_number(state.rotation)} radians, {_times(ratio)} the prediction from"
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
        f" timescale was {_steps(peak.timescale)} and is now {_steps(state.timescale)}."
        f" {_number(state.passed)} have passed.",
        "Near the peak of the learning rate decay was too strong: a timescale under"
        f" {_steps(STRONG_TIMESCALE)}, a rotation of {_number(peak.long_run_rotation)} radians a step in the long run."
        if found.strong_peak
        else "",
        f"The effective LR was {_number(peak.effective_lr)} and is now {_number(state.effective_lr)}; a step turned the"
        f" weights by {_number(peak.rotation)} radians, now by {_number(state.rotation)}.",
        _norm_so_far(found, state),
    ]


def _norm_so_far(found: Diagnosis, state: RoleState) -> str:
    if not _known(state.norm_change):
        return ""
    return f"The weight norm has changed by {_percent(state.norm_change)} in {_steps(found.steps)}."


def _effective(found: Diagnosis, state: RoleState) -> str:
    if not _known(state.effective_lr):
        return ""
    return f"The effective LR is {_number(state.effective_lr)}{_since_first(found, state)}."


def _since_first(found: Diagnosis, state: RoleState) -> str:
    if not math.isfinite(state.effective_lr_change):
        return ""
    if state.effective_lr_since == found.first:
        return f", {_times(state.effective_lr_change)} the first record's"
    first = f"that of step {state.effective_lr_since:,.0f}, the first record with a positive one"
    return f", {_times(state.effective_lr_change)} {first}"


def _share(state: RoleState) -> str:
    return f"{_percent(state.share, sign=False)} of an update is decay." if _known(state.share) else ""


def _table(found: Diagnosis) -> list[str]:
    rows = [[title for _, title in _COLUMNS]]
    for state in found.roles:
        cells = []
        for attribute, _ in _COLUMNS:
            value = getattr(state, attribute)
            if attribute == "role":
                cells.append(value)
            elif attribute in ("norm_change", "share"):
                cells.append(_percent(value, sign=attribute == "norm_change"))
            else:
                cells.append(_number(value))
        rows.append(cells)
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _known(*values: float) -> bool:
    return not any(math.isnan(v) for v in values)


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.3g}" if abs(value) < 999.5 or math.isinf(value) else f"{value:,.0f}"


def _steps(value: float) -> str:
    if math.isinf(value):
        return "infinitely many steps"
    count = f"{value:,.0f}"
    return f"{count} step{'' if count == '1' else 's'}"


def _percent(value: float, sign: bool = True) -> str:
    if math.isnan(value):
        return "-"
    plus = "+" if sign else ""
    return f"{100 * value:{plus}.2g} %" if abs(value) < 0.995 else f"{100 * value:{plus},.0f} %"


def _times(value: float) -> str:
    return f"{_number(value)} times"
