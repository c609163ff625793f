"""Numbers of one checkpoint: each tensor's norm, group, precision and last update; the tensors are let go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from decaylab.monitor.doctor_files import Checkpoint
from decaylab.monitor.doctor_groups import Group, Held, groups_of, match_groups
from decaylab.monitor.doctor_model import named_weights
from decaylab.tensors.foreach import norms


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One tensor of one checkpoint.

    Attributes:
        name: Its name.
        role: Its role.
        shape: Its shape.
        dtype: In which it is stored.
        wide_state: Whether its optimizer state is stored in more digits than the weight, as beside a master copy.
        norm: Frobenius norm.
        group: Number of the param group that holds it; None where none does.
        turn: Length of the last update at right angles to the weight, over the learning rate; NaN if unknown.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    wide_state: bool
    norm: float
    group: int | None
    turn: float

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One checkpoint in numbers.

    Attributes:
        checkpoint: Where it is from; its weights and states are let go.
        step: Updates so far.
        groups: Param groups of all optimizers.
        readings: One a tensor.
        notes: What had to be assumed in matching.
    """

    checkpoint: Checkpoint
    step: int
    groups: tuple[Group, ...]
    readings: tuple[Reading, ...]
    notes: tuple[str, ...]


def snapshot(checkpoint: Checkpoint, step: int, model: nn.Module | None, optimizer: str | None) -> Snapshot:
    """Measure a checkpoint, and let go of its tensors.

    Raises:
        DecaylabError: The weights are not the model's, or the optimizer's state is damaged.
    """
    weights, roles, ordered = named_weights(checkpoint, model)
    groups = groups_of(checkpoint.optimizers, checkpoint.path, optimizer=optimizer)
    states = [o["state"] for o in checkpoint.optimizers for _ in o["param_groups"]]
    held, notes = match_groups(groups, states, weights, ordered=ordered) if groups else ({}, [])
    if held and ordered:  # what no optimizer holds and no model knows is a buffer, or frozen
        weights = {name: tensor for name, tensor in weights.items() if name in held or model is not None}
    found = []
    for name, tensor in weights.items():
        place = held.get(name)
        wide = tensor.detach().to(torch.float64 if tensor.dtype == torch.float64 else torch.float32)
        found.append(
            Reading(
                name=name,
                role=roles.get(name, "unknown"),
                shape=tuple(tensor.shape),
                dtype=tensor.dtype,
                wide_state=place is not None and _is_wide(place.state, tensor),
                norm=float(norms([wide])[0]) if wide.numel() else 0.0,
                group=place.group if place is not None else None,
                turn=_turn(wide, place, groups),
            )
        )
    checkpoint.weights = {}
    checkpoint.optimizers = []
    return Snapshot(
        checkpoint=checkpoint, step=step, groups=tuple(groups), readings=tuple(found), notes=tuple(dict.fromkeys(notes))
    )


def _is_wide(state: Mapping[str, Any], weight: Tensor) -> bool:
    return any(
        isinstance(t, Tensor) and t.shape == weight.shape and t.element_size() > weight.element_size()
        for t in state.values()
    )


def _turn(weight: Tensor, held: Held | None, groups: Sequence[Group]) -> float:
    """Return |u - (u.w) w / |w|^2| for an update of -lr u: AdamW's by its moments, SGD's by its buffer."""
    if held is None or not weight.numel():
        return math.nan
    group, state = groups[held.group], held.state

    def moment(name: str) -> Tensor | None:
        found = state.get(name)
        if not isinstance(found, Tensor) or found.shape != weight.shape or not found.is_floating_point():
            return None
        return found.to(weight.dtype) if found.layout is torch.strided and not found.is_quantized else None

    first, second, buffer = moment("exp_avg"), moment("exp_avg_sq"), moment("momentum_buffer")
    if group.optimizer in ("adamw", "adam") and first is not None and second is not None:
        count = state.get("step", 0)
        count = count.item() if isinstance(count, Tensor) and count.numel() == 1 else count
        if not isinstance(count, int | float) or not 1 <= count < math.inf:
            return math.nan
        if not all(0 <= beta < 1 for beta in group.betas):
            return math.nan
        one, two = (1 - beta**count for beta in group.betas)
        update = (first / one) / ((second / two).sqrt() + group.eps)
    elif group.optimizer == "sgd" and buffer is not None:
        update = buffer
    else:
        return math.nan
    square = float(weight.square().sum())
    along = float((update * weight).sum()) / square if square else 0.0
    return float((update - along * weight).norm())


def lost_share(share: float, dtype: torch.dtype) -> str:
    """Say how much of a decay is rounded away where it is a pass of its own: ``wholly``, ``partly`` or nothing.

    With p significant bits the numbers near w are 2^-p to 2^(1-p) of w apart, and a change below half of that is
    rounded to none.

    Args:
        share: Of a weight a step.
        dtype: Of the weights.
    """
    if not share > 0 or not dtype.is_floating_point:
        return ""
    eps = torch.finfo(dtype).eps
    return "wholly" if share < eps / 4 else "partly" if share < eps / 2 else ""
