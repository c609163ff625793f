"""Examination of a finished training: what its weight decay did, from the checkpoints that it left."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from decaylab.conventions import step_decay
from decaylab.conventions.equilibrium import RotationInputs, rms_weight, update_ratio
from decaylab.errors import DecaylabError
from decaylab.monitor.diagnosis import diagnose
from decaylab.monitor.diagnosis_result import Diagnosis
from decaylab.monitor.doctor_files import MOST_STEPS, places, read
from decaylab.monitor.doctor_groups import Group
from decaylab.monitor.doctor_rates import Rates, rates
from decaylab.monitor.doctor_snapshot import Reading, Snapshot, lost_share, snapshot


@dataclass(frozen=True, kw_only=True)
class TensorFinding:
    """What decay did to one tensor. NaN where it is not known.

    Attributes:
        name: Its name.
        role: Its role.
        shape: Its shape.
        weight_decay: Coefficient of its group; None where no optimizer holds it.
        timescales: Sum over the updates of the share of the weight that decay took.
        removed: Share that decay alone removed over the training, ``1 - prod(1 - share)``.
        stored: Precision in which it is stored.
        lost: Of the decay of the largest step, in that precision: ``wholly`` or ``partly`` rounded away, or nothing.
        norms: Frobenius norm in each checkpoint.
        effective_lr: ``lr / ((1 - share) norm)`` of the last update before each checkpoint.
        rotation: Radians that the last update turned it by.
        equilibrium_rotation: Radians in equilibrium at that learning rate.
        rms: Root mean square of its entries at the end.
        equilibrium_rms: The same in equilibrium at the largest learning rate, where the update's size is known.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    weight_decay: float | None
    timescales: float
    removed: float
    stored: str
    lost: str
    norms: tuple[float, ...]
    effective_lr: tuple[float, ...]
    rotation: float
    equilibrium_rotation: float
    rms: float
    equilibrium_rms: float


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What the checkpoints of a training say.

    Attributes:
        kind: The program that wrote them.
        paths: The checkpoints.
        steps: Updates before each.
        total_steps: Length of the run, where it is known.
        optimizer: As its settings tell it.
        groups: Param groups of the last checkpoint.
        rates: Learning rate of each group at every update.
        source: Where these are from.
        tensors: One finding a tensor.
        diagnosis: Of the norms over the checkpoints.
        assumed: What the checkpoints do not say.
    """

    kind: str
    paths: tuple[Path, ...]
    steps: tuple[int, ...]
    total_steps: int | None
    optimizer: str
    groups: tuple[Group, ...]
    rates: tuple[Rates, ...]
    source: str
    tensors: tuple[TensorFinding, ...]
    diagnosis: Diagnosis
    assumed: tuple[str, ...]

    @property
    def main_group(self) -> int | None:
        """The group that decays the most elements; of all groups where none decays."""
        sizes = [sum(math.prod(s) for s in g.shapes if s is not None) for g in self.groups]
        order = sorted(range(len(sizes)), key=lambda i: (self.groups[i].weight_decay > 0, sizes[i]))
        return order[-1] if order else None


def examine(
    paths: Sequence[Path | str],
    *,
    model: nn.Module | None = None,
    optimizer: str | None = None,
    steps: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Examination:
    """Examine the checkpoints of one training.

    Args:
        paths: Folders of transformers, files of nanoGPT, Lightning or torch, or folders of several of them.
        model: For exact roles and the order of the parameters.
        optimizer: adamw, adam, sgd, lion or muon, where the state does not tell.
        steps: Updates before the checkpoint, where a single one does not tell.
        say: Called with a line for each checkpoint.

    Returns:
        The examination.

    Raises:
        DecaylabError: No checkpoint is there, one that was named cannot be read, or they are of different models.
    """
    snapshots, notes = _snapshots(places([Path(p) for p in paths]), model, optimizer, steps, say)
    last = snapshots[-1]
    decays = [s for s in snapshots if s.groups]
    groups = decays[-1].groups if decays else ()
    lrs, source, guessed = rates([(s.checkpoint, s.groups) for s in decays], last.step) if decays else ([], "", False)
    if decays and decays[-1] is not last:
        notes.append(f"{last.checkpoint.path} has no optimizer state: that of step {decays[-1].step:,} is taken")
    if guessed:
        notes.append(f"learning rate: {source}")
    shares = [_shares(decays, i, lr) for i, lr in enumerate(lrs)]
    holders = {r.name: r for r in decays[-1].readings} if decays else {}
    tensors = tuple(_finding(r, holders.get(r.name), snapshots, groups, lrs, shares) for r in last.readings)
    notes += [note for s in snapshots[-1:] for note in s.notes]
    if any(g.optimizer == "other" for g in groups):
        notes.append(
            "the optimizer is not known by its settings: decay is taken as lr times weight_decay (--optimizer)"
        )
    elif any(g.optimizer == "adamw" for g in groups) and optimizer is None and not _says_so(decays[-1]):
        notes.append("the optimizer is taken to be AdamW: its state would look the same for Adam (--optimizer adam)")
    return Examination(
        kind=last.checkpoint.kind,
        paths=tuple(s.checkpoint.path for s in snapshots),
        steps=tuple(s.step for s in snapshots),
        total_steps=last.checkpoint.total_steps,
        optimizer=" and ".join(dict.fromkeys(g.optimizer for g in groups)),
        groups=groups,
        rates=tuple(lrs),
        source=source,
        tensors=tensors,
        diagnosis=diagnose(_records(snapshots, tensors, groups, lrs, shares)),
        assumed=tuple(dict.fromkeys(notes)),
    )


def _says_so(found: Snapshot) -> bool:
    return all(g.says_decoupled for g in found.groups if g.optimizer == "adamw")


def _snapshots(
    found: Sequence[tuple[Path, bool]],
    model: nn.Module | None,
    optimizer: str | None,
    steps: int | None,
    say: Callable[[str], None],
) -> tuple[list[Snapshot], list[str]]:
    if steps is not None and not 0 <= steps <= MOST_STEPS:
        raise DecaylabError(f"--steps must be from 0 to {MOST_STEPS:,}, not {steps:,}")
    kept: dict[int, Snapshot] = {}
    notes: list[str] = []
    for number, (path, named) in enumerate(found):
        if len(found) > 1:
            say(f"checkpoint {number + 1} of {len(found)}: {path}")
        try:
            checkpoint = read(path)
            step = steps if steps is not None and len(found) == 1 else checkpoint.step
            if step is None:
                if len(found) == 1:
                    raise DecaylabError(f"{path} does not say how many updates came before it: say it with --steps")
                notes.append(f"{path.name} does not say how many updates came before it, and is left out")
                continue
            one = snapshot(checkpoint, step, model, optimizer)
        except DecaylabError as error:
            if named or len(found) == 1:
                raise
            notes.append(f"{path.name} is left out: {error}")
            continue
        if step not in kept or (one.groups and not kept[step].groups):
            kept[step] = one
    if not kept:
        raise DecaylabError(notes[0] if notes else "there is no checkpoint to examine")
    ordered = [kept[step] for step in sorted(kept)]
    shapes = [{r.name: r.shape for r in s.readings} for s in ordered]
    for one, shape in zip(ordered, shapes, strict=True):
        shared = shape.keys() & shapes[-1].keys()
        if not shared or any(shape[name] != shapes[-1][name] for name in shared):
            raise DecaylabError(
                f"{one.checkpoint.path} and {ordered[-1].checkpoint.path} are of different models: name the "
                "checkpoints of one training"
            )
    return ordered, notes


def _shares(snapshots: Sequence[Snapshot], group: int, lr: Rates) -> Rates:
    """Return the share of a weight that decay took at each update; NaN where it goes through an adaptive gradient."""
    known = [s for s in snapshots if len(s.groups) > group]
    decay = np.interp(np.arange(len(lr)), [s.step for s in known], [s.groups[group].weight_decay for s in known])
    last = known[-1].groups[group]
    if last.meaning == "adaptive l2":
        return np.where(decay == 0, 0.0, np.nan)
    gain = step_decay.momentum_gain(last.momentum, last.dampening) if last.meaning == "l2" else 1.0
    return np.asarray(lr * decay * gain, dtype=np.float64)


def _finding(
    at_end: Reading,
    holder: Reading | None,
    snapshots: Sequence[Snapshot],
    groups: Sequence[Group],
    lrs: Sequence[Rates],
    shares: Sequence[Rates],
) -> TensorFinding:
    number = holder.group if holder is not None else None
    found = [next((r for r in s.readings if r.name == at_end.name), None) for s in snapshots]
    norms = tuple(r.norm if r is not None else math.nan for r in found)
    rms = at_end.norm / math.sqrt(at_end.numel) if at_end.numel else math.nan
    empty = {"timescales": math.nan, "removed": math.nan, "lost": ""}
    effective: tuple[float, ...] = tuple(math.nan for _ in snapshots)
    turned = predicted = balanced = math.nan
    decay: float | None = None
    if number is not None:
        group, lr, share = groups[number], lrs[number], shares[number]
        decay = group.weight_decay
        largest = float(share.max(initial=0.0))
        with np.errstate(all="ignore"):
            left = float(np.exp(np.log1p(-np.minimum(share, 1.0)).sum()))
        lost = "" if at_end.wide_state else lost_share(largest, at_end.dtype)
        empty = {"timescales": float(share.sum()), "removed": 1 - left, "lost": lost}
        effective = tuple(_effective(lr, share, s.step, n) for s, n in zip(snapshots, norms, strict=True))
        inputs = _inputs(group)
        if len(lr) and at_end.norm > 0:
            turned = float(lr[-1]) * at_end.turn / at_end.norm
            ratio = update_ratio(inputs) if inputs is not None else None
            predicted = math.sqrt(2 * float(share[-1]) * ratio) if ratio is not None and share[-1] > 0 else math.nan
            peak = int(lr.argmax())
            known = rms_weight(float(share[peak]), float(lr[peak]), inputs) if inputs is not None else None
            balanced = known if known is not None else math.nan
    return TensorFinding(
        name=at_end.name,
        role=at_end.role,
        shape=at_end.shape,
        weight_decay=decay,
        stored=str(at_end.dtype).removeprefix("torch."),
        norms=norms,
        effective_lr=effective,
        rotation=turned,
        equilibrium_rotation=predicted,
        rms=rms,
        equilibrium_rms=balanced,
        **empty,  # type: ignore[arg-type]
    )


def _inputs(group: Group) -> RotationInputs | None:
    if group.optimizer not in ("adamw", "sgd", "lion"):
        return None
    try:
        return RotationInputs(optimizer=group.optimizer, betas=group.betas, momentum=group.momentum)  # type: ignore[arg-type]
    except DecaylabError:
        return None


def _effective(lr: Rates, share: Rates, step: int, norm: float) -> float:
    if not 0 < step <= len(lr) or not norm > 0:
        return math.nan
    taken = float(share[step - 1])
    return float(lr[step - 1]) / ((1 - (taken if taken == taken else 0.0)) * norm)


def _records(
    snapshots: Sequence[Snapshot],
    tensors: Sequence[TensorFinding],
    groups: Sequence[Group],
    lrs: Sequence[Rates],
    shares: Sequence[Rates],
) -> list[dict[str, float]]:
    """Return what `watch` would have recorded at the checkpoints, for the same diagnosis."""
    holders = {r.name: r.group for s in snapshots if s.groups for r in s.readings}
    known = [t for t in tensors if t.weight_decay and holders.get(t.name) is not None and t.timescales == t.timescales]
    roles = sorted({t.role for t in known})
    passed = [np.cumsum(share) for share in shares]
    records = []
    for place, one in enumerate(snapshots):
        record: dict[str, float] = {"step": float(one.step)}
        for role in sorted({t.role for t in tensors}):
            mine = [t for t in tensors if t.role == role]
            record[f"weights/norm/{role}"] = _root([t.norms[place] for t in mine])
            record[f"effective_lr/{role}"] = _joint([(t.effective_lr[place], t.norms[place]) for t in mine])
        record["weights/norm"] = math.sqrt(math.fsum(r.norm**2 for r in one.readings))  # NaN stays NaN
        for suffix, mine in (("", known), *((f"/{r}", [t for t in known if t.role == r]) for r in roles)):
            if not mine or not 0 < one.step <= len(lrs[0]):
                continue
            sizes = [math.prod(t.shape) for t in mine]
            at = [holders[t.name] or 0 for t in mine]
            count = sum(n * passed[g][one.step - 1] for n, g in zip(sizes, at, strict=True)) / max(sum(sizes), 1)
            share = sum(n * shares[g][one.step - 1] for n, g in zip(sizes, at, strict=True)) / max(sum(sizes), 1)
            record[f"timescale/passed{suffix}"] = float(count)
            record[f"timescale/steps{suffix}"] = 1 / share if share > 0 else math.inf
            record[f"decayed/norm{suffix}"] = _root([t.norms[place] for t in mine])
            record[f"decayed/effective_lr{suffix}"] = _joint([(t.effective_lr[place], t.norms[place]) for t in mine])
            if place == len(snapshots) - 1:
                turns = [(t.rotation, t.equilibrium_rotation, t.norms[place]) for t in mine]
                usable = [t for t in turns if all(map(math.isfinite, t))]
                square = sum(n * n for _, _, n in usable)
                if square > 0:
                    record[f"decayed/angular{suffix}"] = math.sqrt(sum((a * n) ** 2 for a, _, n in usable) / square)
                    record[f"update/angular_predicted{suffix}"] = math.sqrt(
                        sum((p * n) ** 2 for _, p, n in usable) / square
                    )
        records.append(record)
    return records


def _root(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(v * v for v in values if v == v))


def _joint(pairs: Sequence[tuple[float, float]]) -> float:
    """Effective learning rate of several tensors together, each weighted by the norm it acts on."""
    known = [(rate, norm) for rate, norm in pairs if math.isfinite(rate) and norm > 0]
    total = math.fsum(norm**2 for _, norm in known)
    return math.sqrt(math.fsum((rate * norm * norm) ** 2 for rate, norm in known)) / total if total else math.nan
