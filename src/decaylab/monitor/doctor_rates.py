"""Learning rate of every update of a finished training, from what its checkpoints keep of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.optim import lr_scheduler

from decaylab.errors import DecaylabError
from decaylab.monitor.doctor_files import Checkpoint
from decaylab.monitor.doctor_groups import Group
from decaylab.schedules import Schedule, values

Rates = npt.NDArray[np.float64]
_MOST_TICKS = 1_000_000
_FEW_POINTS = 30
_NEAR = 0.02  # of the peak: a schedule this close to a known one is that one


def rates(checkpoints: Sequence[tuple[Checkpoint, Sequence[Group]]], steps: int) -> tuple[list[Rates], str, bool]:
    """Return each group's learning rate at every update, where it comes from, and whether that is an assumption.

    The first of these that is there: nanoGPT's own settings; the rates that transformers logged, with lines between
    them; the state of a scheduler of torch's; the groups' rates in several checkpoints, with lines between them; the
    rate of the only checkpoint, taken as constant.

    Args:
        checkpoints: In the order of their steps, with their groups; the last one's groups count.
        steps: Updates to go through.
    """
    last, groups = checkpoints[-1]
    if not steps:
        return [np.zeros(0) for _ in groups], "no update", False
    found = _nanogpt(last.settings, steps) if last.kind == "nanoGPT" else None
    if found is not None:
        return [found for _ in groups], "the settings in the checkpoint", False
    if last.logged:
        fitted = _fitted(last, groups, steps)
        if fitted is not None:
            first = last.logged[0][0]
            flat = first > 1 and bool((fitted[0] == fitted[0][0]).all())
            unseen = f", which do not show a warm-up before step {first:,}" if flat else ""
            return fitted, f"the logged learning rates{unseen}", flat
        return _from_log(last.logged, groups, steps), "the logged learning rates, lines between them", False
    simulated = _from_scheduler(last, groups, steps)
    if simulated is not None:
        return simulated, "the state of the scheduler", False
    known = [(c.step, g) for c, g in checkpoints if c.step and len(g) == len(groups)]
    if len(known) > 1:
        at = [step for step, _ in known]
        lines = [np.interp(np.arange(steps), at, [g[i].lr for _, g in known]) for i in range(len(groups))]
        return lines, "the learning rates in the checkpoints, lines between them", True
    constant = [np.full(steps, g.lr or g.initial_lr) for g in groups]
    return constant, "the learning rate of the checkpoint, taken as constant", True


def _nanogpt(settings: Mapping[str, Any], steps: int) -> Rates | None:
    """NanoGPT's schedule: a warm-up to ``learning_rate``, a cosine to ``min_lr`` at ``lr_decay_iters``."""
    try:
        peak = float(settings["learning_rate"])
        if not settings.get("decay_lr", True):
            return np.full(steps, peak)
        warmup, end, least = (float(settings[name]) for name in ("warmup_iters", "lr_decay_iters", "min_lr"))
    except (KeyError, TypeError, ValueError):
        return None
    if not all(map(math.isfinite, (peak, warmup, end, least))) or min(peak, warmup, end, least) < 0:
        return None
    step = np.arange(steps, dtype=np.float64)
    progress = np.clip((step - warmup) / max(end - warmup, 1.0), 0.0, 1.0)
    cosine = least + 0.5 * (1 + np.cos(math.pi * progress)) * (peak - least)
    return np.where(step < warmup, peak * (step + 1) / (warmup + 1), cosine)


def _fitted(last: Checkpoint, groups: Sequence[Group], steps: int) -> list[Rates] | None:
    """Return the schedule of transformers' (linear, cosine, constant, with a warm-up) that gives every logged rate."""
    base, total = groups[0].initial_lr if groups else 0.0, last.total_steps
    if base <= 0 or not total or total < steps:
        return None
    at = np.array([step - 1 for step, _ in last.logged if step <= total])
    logged = np.array([lr for step, lr in last.logged if step <= total])
    shapes = {
        "constant": Schedule(),
        "linear": Schedule(kind="linear"),
        "cosine": Schedule(kind="cosine", final_ratio=0),
    }
    for kind, schedule in shapes.items():
        for warmup in _warmups(kind, at, logged / base, total):
            try:
                tried = replace(schedule, warmup_steps=warmup)
                if np.allclose(values(tried, at, base, total), logged, rtol=0, atol=1e-3 * base):
                    line = values(tried, np.arange(steps), base, total)
                    return [line * (g.initial_lr / base) for g in groups]
            except DecaylabError:
                continue
    return None


def _warmups(kind: str, at: npt.NDArray[np.int64], share: Rates, total: int) -> list[int]:
    """Return the lengths of a warm-up that single logged rates would come from."""
    found = {0}
    for step, part in [*zip(at, share, strict=True)][:_FEW_POINTS]:
        if not 0 < part < 1 - 1e-6:
            continue
        ends = [step / part]
        if kind == "linear":
            ends.append(total - (total - step) / part)
        elif kind == "cosine":
            progress = math.acos(2 * part - 1) / math.pi
            ends.append((step - progress * total) / (1 - progress))
        found |= {round(end) for end in ends if 0 <= end < total}
    return sorted(found)


def _from_log(logged: Sequence[tuple[int, float]], groups: Sequence[Group], steps: int) -> list[Rates]:
    """Lines through what was logged: after n updates, the rate of update n - 1."""
    known = dict(sorted(logged))
    at, lr = [step - 1 for step in known], list(known.values())
    base = groups[0].initial_lr if groups else 0.0
    if at[0] > 0:
        # A first value below the peak that rises is a warm-up from 0; one that falls began at the peak.
        at, lr = [0, *at], [0.0 if len(lr) > 1 and lr[0] < lr[1] else max(base, lr[0]), *lr]
    line = np.interp(np.arange(steps), at, lr)
    return [line * (g.initial_lr / base) if base else line for g in groups]


_CLASSES: tuple[tuple[frozenset[str], Callable[..., Any], tuple[str, ...]], ...] = (
    (frozenset({"T_max", "eta_min"}), lr_scheduler.CosineAnnealingLR, ("T_max", "eta_min")),
    (frozenset({"start_factor", "end_factor", "total_iters"}), lr_scheduler.LinearLR,
     ("start_factor", "end_factor", "total_iters")),
    (frozenset({"factor", "total_iters"}), lr_scheduler.ConstantLR, ("factor", "total_iters")),
    (frozenset({"power", "total_iters"}), lr_scheduler.PolynomialLR, ("total_iters", "power")),
    (frozenset({"step_size", "gamma"}), lr_scheduler.StepLR, ("step_size", "gamma")),
    (frozenset({"milestones", "gamma"}), lr_scheduler.MultiStepLR, ("milestones", "gamma")),
    (frozenset({"gamma"}), lr_scheduler.ExponentialLR, ("gamma",)),
)  # fmt: skip


def _from_scheduler(last: Checkpoint, groups: Sequence[Group], steps: int) -> list[Rates] | None:
    """Step torch's own scheduler again, made from the settings that its state keeps."""
    if not last.schedulers:
        return None
    state = last.schedulers[0]
    ticks, base = state.get("last_epoch"), [g.initial_lr for g in groups]
    if not isinstance(ticks, int) or not 0 < ticks <= min(steps, _MOST_TICKS) or not last.step:
        return None
    parameters = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in base]
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    lrs = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = _rebuilt(optimizer, state)
            if scheduler is None:
                return None
            for _ in range(ticks):
                lrs.append([group["lr"] for group in optimizer.param_groups])
                scheduler.step()
    except Exception:  # settings of a damaged state: torch raises many kinds
        return None
    found = [group["lr"] for group in optimizer.param_groups]
    if not np.allclose(found, [g.lr for g in groups], rtol=1e-3, atol=1e-12):
        return None  # another class with the same settings
    # A scheduler that ticks once an epoch: as many updates a tick, evenly.
    tick = np.minimum(np.arange(steps) * ticks // last.step, ticks - 1)
    return [np.array(lrs)[tick, i] for i in range(len(groups))]


def _rebuilt(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], depth: int = 0) -> Any:
    inner = state.get("_schedulers")
    if isinstance(inner, list) and isinstance(state.get("_milestones"), list) and depth == 0:
        parts = [_rebuilt(optimizer, part, 1) for part in inner if isinstance(part, Mapping)]
        if not parts or None in parts:
            return None
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=state["_milestones"])
    for keys, make, arguments in _CLASSES:
        if keys <= state.keys():
            chosen = {name: state[name] for name in arguments}
            if "milestones" in chosen:
                chosen["milestones"] = sorted(chosen["milestones"])
            return make(optimizer, **chosen)
    return None


def nearest_schedule(lr: Rates) -> tuple[Schedule, float]:
    """Return the schedule and peak of `decaylab.schedules` that is nearest; constant at the mean where none is near."""
    peak, steps = float(lr.max(initial=0.0)), len(lr)
    if peak <= 0:
        return Schedule(), 0.0
    top = np.flatnonzero(lr >= peak * (1 - 1e-6))
    warmup = int(top[0]) if lr[0] < 0.9 * peak else 0
    final = float(lr[-1])
    kinds = [Schedule(warmup_steps=warmup)]
    kinds += [
        Schedule(kind="linear", warmup_steps=warmup),
        Schedule(kind="cosine", warmup_steps=warmup, final_lr=final),
    ]
    best, deviation = Schedule(), math.inf
    for schedule in kinds:
        try:
            found = float(np.abs(values(schedule, np.arange(steps), peak, steps) - lr).mean()) / peak
        except DecaylabError:
            continue
        if found < deviation:
            best, deviation = schedule, found
    return (best, peak) if deviation < _NEAR else (Schedule(), float(lr.mean()))
