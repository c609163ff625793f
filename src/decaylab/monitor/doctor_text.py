"""Words of an examination: what decay did, and what to change, as lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from decaylab.advice.candidates import Candidate, DecayOfRun, choose
from decaylab.conventions.explanation import OWN_CONVENTION, Explanation, explain
from decaylab.conventions.reading import IDLE_TIMESCALES, reading
from decaylab.errors import DecaylabError
from decaylab.monitor.doctor import Examination, TensorFinding
from decaylab.monitor.doctor_rates import nearest_schedule
from decaylab.monitor.formatting import angle, known, number, times
from decaylab.monitor.text import describe
from decaylab.quantities import format_number
from decaylab.schedules import Schedule

_ABSURD = "These settings are out of the range of numbers: no training has them."
_SHORTEST_TUNED = 1280  # steps: of a shorter run decaylab tune's shortest schedules would be too short
_LEFT_OUT = ("norm", "bias", "scalar")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that decay the most weights, in the terms of `explain`.

    Attributes:
        optimizer: adamw, sgd, lion or muon.
        lr: Peak learning rate.
        weight_decay: Lambda.
        schedule: The known schedule that is nearest to the learning rates.
        steps: Updates.
        momentum: Of SGD.
    """

    optimizer: str
    lr: float
    weight_decay: float
    schedule: Schedule
    steps: int
    momentum: float

    def explained(self) -> Explanation:
        """Return what `explain` says of them."""
        return explain(
            optimizer=self.optimizer,
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            steps=self.steps,
            momentum=self.momentum,
        )

    def candidates(self) -> tuple[Candidate, ...]:
        """Return values that pass 0.3 to 3 timescales in a run of this length."""
        run = DecayOfRun(
            lr=self.lr, schedule=self.schedule, steps=self.steps, optimizer=self.optimizer, momentum=self.momentum
        )
        return choose(run, {}, span=True)


def settings(found: Examination) -> Settings | None:
    """Return the settings of the main group; None where they are not known or `explain` knows no such optimizer."""
    group = found.main_group
    if group is None or not len(found.rates[group]):
        return None
    optimizer = {"other": "adamw"}.get(found.groups[group].optimizer, found.groups[group].optimizer)
    schedule, lr = nearest_schedule(found.rates[group])
    if optimizer not in OWN_CONVENTION or lr <= 0:
        return None
    return Settings(
        optimizer=optimizer,
        lr=float(f"{lr:.6g}"),
        weight_decay=found.groups[group].weight_decay,
        schedule=schedule,
        steps=len(found.rates[group]),
        momentum=found.groups[group].momentum,
    )


def what_explain_says(found: Examination) -> list[str]:
    """Return the sentences of `explain` about the main group's settings."""
    own = settings(found)
    if own is None:
        return []
    try:
        return reading(own.explained())
    except DecaylabError as error:
        return [str(error)]
    except OverflowError:
        return [_ABSURD]


def what_decay_did(found: Examination) -> list[str]:
    """Return sentences about rounding, norms and equilibrium."""
    said = []
    if found.diagnosis.verdict == "not finite":
        said.append(describe(found.diagnosis).splitlines()[0])
    elif any(g.meaning == "adaptive l2" and g.weight_decay for g in found.groups):
        said.append(
            "Adam's weight_decay is an L2 penalty, divided by the size of the gradient: what it removed from each "
            "weight is not known, and differs from weight to weight."
        )
    elif not found.groups:
        said.append("Without the optimizer's state nothing is known of decay: only the norms are shown.")
    elif not any(g.weight_decay for g in found.groups):
        said.append("No weight decay was in force: weight_decay is 0 in every param group.")
    elif len(found.steps) > 1 and found.diagnosis.state.passed == found.diagnosis.state.passed:
        said.append(describe(found.diagnosis).splitlines()[0])
    else:
        said += _single(found)
    return said + list(_rounding(found.tensors))


def _single(found: Examination) -> Iterator[str]:
    state = found.diagnosis.state
    yield (
        f"{number(state.passed)} timescales have passed."
        if known(state.passed)
        else "How many timescales have passed is not known."
    )
    if known(state.rotation, state.predicted) and state.predicted > 0:
        ratio = state.rotation / state.predicted
        yield (
            f"The last update turned the decayed weights by {angle(state.rotation)}, {times(ratio)} what it is in "
            "equilibrium at that learning rate (below 1: norms still above it, or the learning rate fell; above 1: "
            "still growing towards it)."
        )
    if len(found.steps) == 1:
        yield "Whether norms had settled takes several checkpoints: name their folder."


def _rounding(tensors: Sequence[TensorFinding]) -> Iterator[str]:
    for kind, words in (
        ("wholly", "is below half the spacing of its numbers even at the largest learning rate: as a pass of its own "
         "it is rounded away"),
        ("partly", "is below half the spacing of its numbers for some weights: it is partly rounded away"),
    ):  # fmt: skip
        for stored in dict.fromkeys(t.stored for t in tensors if t.lost == kind):
            mine = [t for t in tensors if t.lost == kind and t.stored == stored]
            names = ", ".join(t.name for t in mine[:3]) + (f" and {len(mine) - 3} more" if len(mine) > 3 else "")
            bits = "" if stored not in ("bfloat16", "float16") else " unless float32 masters were kept beside them"
            yield f"Stored in {stored}, the decay of {names} {words}{bits}."


def what_to_change(found: Examination) -> list[str]:
    """Return what to do differently, and the commands that decide it."""
    said = list(_roles(found))
    if any(g.meaning == "adaptive l2" and g.weight_decay for g in found.groups):
        said.append("Use AdamW, whose decay acts beside the update at the rate lr times weight_decay.")
    if any(t.lost == "wholly" and t.stored in ("bfloat16", "float16") for t in found.tensors):
        said.append(
            "Keep float32 masters of the weights (autocast or mixed precision), or round stochastically: decay in "
            f"{_halves(found)} reaches few weights."
        )
    own = settings(found)
    if own is None:
        return said
    try:
        passed = own.explained().timescales_in_run
        options = own.candidates()
    except (DecaylabError, OverflowError):
        passed, options = math.inf, ()
    if passed < IDLE_TIMESCALES and options:
        listed = ", ".join(f"{format_number(c.weight_decay, 2)} ({c.because})" for c in options)
        said.append(f"For decay that acts, try weight_decay {listed}.")
    elif passed < IDLE_TIMESCALES:
        said.append(
            "The run is too short for decay to act at this learning rate: a value that did would be too strong."
        )
    elif math.isfinite(passed):
        said.append(
            f"Decay passed {format_number(passed, 3)} timescales; whether more or less is better only runs can tell."
        )
    schedule = own.schedule.kind if own.schedule.kind in ("cosine", "linear") else "constant"
    length = max(own.steps, found.total_steps or 0)
    if length < _SHORTEST_TUNED:
        said.append(f"A run of {length:,} steps is short enough to try other values whole, with three seeds each.")
        return said
    said.append(
        f"To decide it: decaylab tune --steps {length} --lr {own.lr:g} --weight-decay {own.weight_decay:g} "
        f"--schedule {schedule} -- python train.py --lr {{lr}} --weight-decay {{weight_decay}} --max-steps {{steps}} "
        "--seed {seed}"
    )
    return said


def _halves(found: Examination) -> str:
    low = {str(d).removeprefix("torch.") for d in (torch.bfloat16, torch.float16)}
    return " and ".join(dict.fromkeys(t.stored for t in found.tensors if t.stored in low))


def _roles(found: Examination) -> Iterator[str]:
    if not any(t.weight_decay for t in found.tensors):
        return
    wrongly = [t for t in found.tensors if t.weight_decay and t.role in _LEFT_OUT]
    missed = [t for t in found.tensors if t.weight_decay == 0 and t.role == "matrix"]
    for mine, words in (
        (wrongly, "decay although they are norms, biases or scalars, which usually do not"),
        (missed, "are matrices and did not decay"),
    ):
        if mine:
            names = ", ".join(t.name for t in mine[:3])
            said = (
                f"{len(mine)} tensors {words} ({names}{', ...' if len(mine) > 3 else ''}): see decaylab.decay_groups."
            )
            yield said


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines in columns, the first one left and the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]


def role_rows(found: Examination) -> list[list[str]]:
    """Return one row a role, below a heading."""
    rows = [["role", "tensors", "elements", "weight decay", "timescales", "removed", "norm", "effective LR", "RMS"]]
    rows[0].append("in equilibrium")
    for role in sorted({t.role for t in found.tensors}):
        mine = [t for t in found.tensors if t.role == role]
        sizes = [math.prod(t.shape) for t in mine]
        norms = [
            math.sqrt(math.fsum(n * n for n in column if n == n))
            for column in zip(*(t.norms for t in mine), strict=True)
        ]
        rates = [_joint([(t.effective_lr[i], t.norms[i]) for t in mine]) for i in range(len(found.steps))]
        rms = math.sqrt(
            sum(n * t.rms**2 for n, t in zip(sizes, mine, strict=True) if t.rms == t.rms) / max(sum(sizes), 1)
        )
        rows.append(
            [
                role,
                str(len(mine)),
                f"{sum(sizes):,}",
                _span([t.weight_decay for t in mine]),
                _span([t.timescales for t in mine]),
                _span([100 * t.removed for t in mine], " %"),
                _change(norms),
                _change(rates),
                number(rms),
                _span([t.equilibrium_rms for t in mine]),
            ]
        )
    return rows


def tensor_rows(found: Examination) -> list[list[str]]:
    """Return one row a tensor, below a heading."""
    rows = [["tensor", "role", "shape", "weight decay", "timescales", "removed", "norm", "effective LR", "lost"]]
    for t in found.tensors:
        shape = "x".join(map(str, t.shape)) or "1"
        cells = [_span([t.weight_decay]), _span([t.timescales]), _span([100 * t.removed], " %")]
        rows.append([t.name, t.role, shape, *cells, _change(t.norms), _change(t.effective_lr), t.lost or "-"])
    return rows


def _joint(pairs: Sequence[tuple[float, float]]) -> float:
    usable = [(rate, norm) for rate, norm in pairs if math.isfinite(rate) and norm > 0]
    total = math.fsum(norm**2 for _, norm in usable)
    return math.sqrt(math.fsum((rate * norm * norm) ** 2 for rate, norm in usable)) / total if total else math.nan


def _span(values: Sequence[float | None], unit: str = "") -> str:
    usable = [v for v in values if v is not None and math.isfinite(v)]
    if not usable:
        return "-"
    low, high = min(usable), max(usable)
    return f"{format_number(low, 3)}{'' if low == high else f' to {format_number(high, 3)}'}{unit}"


def _change(values: Sequence[float]) -> str:
    first, last = number(values[0]), number(values[-1])
    return last if len(values) == 1 else f"{first} -> {last}"
