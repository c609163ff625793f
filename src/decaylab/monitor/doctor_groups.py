"""Param groups of an optimizer's state matched to names of weights, by order and shapes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from decaylab.errors import DecaylabError, shown

Meaning = Literal["decoupled", "l2", "adaptive l2"]
_LIKE_THE_WEIGHT = ("exp_avg", "momentum_buffer", "exp_avg_sq", "state1", "sum", "square_avg", "m", "v")
_MOST_STATES = 200_000


@dataclass(frozen=True, kw_only=True)
class Group:
    """One param group.

    Attributes:
        lr: Learning rate as it was saved, that of the next update.
        initial_lr: What a scheduler multiplies.
        weight_decay: Its coefficient.
        optimizer: adamw, adam, sgd, lion, muon or other.
        meaning: Whether decay acts beside the update, or through the gradient (of an adaptive optimizer: at no known
            rate).
        momentum: Of SGD.
        dampening: Of SGD.
        betas: Of Adam and Lion.
        eps: Of Adam.
        shapes: Of its parameters; None where the state does not tell.
        ids: Their numbers in the state.
        names: Their names where the optimizer saved them.
        says_decoupled: Whether the group itself says that decay is beside the update, as torch's AdamW does.
    """

    lr: float
    initial_lr: float
    weight_decay: float
    optimizer: str
    meaning: Meaning
    momentum: float
    dampening: float
    betas: tuple[float, float]
    eps: float
    shapes: tuple[tuple[int, ...] | None, ...]
    ids: tuple[Any, ...]
    names: tuple[str, ...]
    says_decoupled: bool


@dataclass(frozen=True)
class Held:
    """Which group holds a tensor, and the state it has there, where that is known."""

    group: int
    state: Mapping[str, Any]


def groups_of(optimizers: Sequence[Mapping[str, Any]], origin: Path, *, optimizer: str | None) -> list[Group]:
    """Return the param groups of some state dicts.

    Args:
        optimizers: State dicts as ``torch.optim.Optimizer.state_dict`` makes them.
        origin: The file, for messages.
        optimizer: What the caller says it is; else it is read from the groups' settings.

    Raises:
        DecaylabError: It is no such state, or a setting is no number.
    """
    found = []
    for state in optimizers:
        groups, entries = state.get("param_groups"), state.get("state")
        if not isinstance(groups, list) or not isinstance(entries, Mapping) or not groups:
            raise DecaylabError(
                f"{origin}: the optimizer's state has no param_groups as torch's have: a sharded one (FSDP, DeepSpeed) "
                "must be gathered into one file first"
            )
        for number, one in entries.items():
            if not isinstance(one, Mapping):
                raise DecaylabError(f"{origin} is damaged: the state of parameter {shown(number)} is {shown(one)}")
        for group in groups:
            if not isinstance(group, Mapping) or not isinstance(group.get("params"), list):
                raise DecaylabError(f"{origin} is damaged: {shown(group)} is no param group")
            found.append(_group(group, entries, origin, optimizer))
    return found


def _group(group: Mapping[str, Any], entries: Mapping[Any, Any], origin: Path, told: str | None) -> Group:
    def number(name: str, default: float) -> float:
        value = group.get(name, default)
        value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise DecaylabError(f"{origin} is damaged: {name} of a param group is {shown(value)}")
        return float(value)

    lr = number("lr", 0.0)
    optimizer, meaning = _kind(group, told)
    betas = group.get("betas")
    pair = tuple(float(b) for b in betas) if betas is not None and _is_pair(betas) else (0.9, 0.999)
    names = group.get("param_names")
    ids = tuple(group["params"])
    try:
        shapes = tuple(_shape(entries.get(i)) for i in ids)
    except TypeError:
        raise DecaylabError(f"{origin} is damaged: a param group's numbers are {shown(ids)}") from None
    return Group(
        lr=lr,
        initial_lr=number("initial_lr", lr),
        weight_decay=number("weight_decay", 0.0),
        optimizer=optimizer,
        meaning=meaning,
        momentum=number("momentum", 0.0),
        dampening=number("dampening", 0.0),
        betas=(pair[0], pair[1]),
        eps=number("eps", 1e-8) if not isinstance(group.get("eps"), tuple | list) else 1e-8,
        shapes=shapes,
        ids=ids,
        names=tuple(n for n in names if isinstance(n, str)) if isinstance(names, list) else (),
        says_decoupled=group.get("decoupled_weight_decay") is True,
    )


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) >= 2 and all(isinstance(v, int | float) for v in value)


def _kind(group: Mapping[str, Any], told: str | None) -> tuple[str, Meaning]:
    """Tell the optimizer by the settings that only it has; torch's Adam says itself whether its decay is decoupled."""
    if told is not None:
        return told, {"sgd": "l2", "adam": "adaptive l2"}.get(told, "decoupled")  # type: ignore[return-value]
    if "ns_steps" in group or "ns_coefficients" in group:
        return "muon", "decoupled"
    if "nesterov" in group or "dampening" in group:
        return "sgd", "l2"
    if "betas" in group and "eps" not in group:
        return "lion", "decoupled"
    if "betas" in group:
        coupled = group.get("decoupled_weight_decay") is False
        return ("adam", "adaptive l2") if coupled else ("adamw", "decoupled")
    return "other", "decoupled"


def _shape(state: Any) -> tuple[int, ...] | None:
    if not isinstance(state, Mapping):
        return None
    row, column = state.get("exp_avg_sq_row"), state.get("exp_avg_sq_col")
    if isinstance(row, Tensor) and isinstance(column, Tensor):  # Adafactor's factors of a matrix
        return (*row.shape, *column.shape[-1:])
    for name in _LIKE_THE_WEIGHT:
        if isinstance(state.get(name), Tensor):
            return tuple(state[name].shape)
    rest = [t for name, t in state.items() if isinstance(t, Tensor) and name != "step"]
    return tuple(max(rest, key=lambda t: t.numel()).shape) if rest else None


def match_groups(
    groups: Sequence[Group], states: Sequence[Mapping[Any, Any]], weights: Mapping[str, Tensor], *, ordered: bool
) -> tuple[dict[str, Held], list[str]]:
    """Match the groups' parameters to names.

    Args:
        groups: Of all optimizers.
        states: The state of each group's optimizer.
        weights: Tensors by name; of tied ones the first.
        ordered: Whether they are in the order in which the model defines them.

    Returns:
        Name to group, and what had to be assumed or could not be matched.
    """
    if all(len(g.names) == len(g.ids) for g in groups) and all(n in weights for g in groups for n in g.names):
        return {
            name: Held(i, states[i].get(number, {}))
            for i, group in enumerate(groups)
            for name, number in zip(group.names, group.ids, strict=True)
        }, []
    placed = _in_order(groups, weights) if ordered else None
    if placed is not None:
        found = {n: Held(i, states[i].get(groups[i].ids[at], {})) for n, (i, at) in placed.items()}
        return found, _ambiguous(groups)
    return _by_shape(groups, weights)


def _in_order(groups: Sequence[Group], weights: Mapping[str, Tensor]) -> dict[str, tuple[int, int]] | None:
    """Lay each group's shapes, in order, over the names; leave out what no group holds (buffers, frozen weights).

    Depth first with the dead ends kept, so that the work is bounded.
    """
    names = list(weights)
    shapes = [tuple(weights[name].shape) for name in names]
    total = sum(len(g.ids) for g in groups)
    dead: set[tuple[int, ...]] = set()
    pointers = [0] * len(groups)
    path: list[tuple[int, list[int], int]] = []  # name's number, options left, option taken (-1: left out)
    at, done = 0, 0
    options = _options(groups, pointers, shapes, 0, total)
    while done < total:
        if len(dead) > _MOST_STATES:
            return None
        if options and (at, *pointers) not in dead:
            taken = options.pop(0)
            path.append((at, options, taken))
            if taken >= 0:
                pointers[taken] += 1
                done += 1
            at += 1
            options = _options(groups, pointers, shapes, at, total - done)
            continue
        dead.add((at, *pointers))
        if not path:
            return None
        at, options, taken = path.pop()
        if taken >= 0:
            pointers[taken] -= 1
            done -= 1
    placed, counts = {}, [0] * len(groups)
    for number, _, taken in path:
        if taken >= 0:
            placed[names[number]] = (taken, counts[taken])
            counts[taken] += 1
    return placed


def _options(
    groups: Sequence[Group], pointers: Sequence[int], shapes: Sequence[tuple[int, ...]], at: int, left: int
) -> list[int]:
    if at >= len(shapes) or len(shapes) - at < left:
        return []
    shape = shapes[at]
    fitting = [
        i
        for i, group in enumerate(groups)
        if pointers[i] < len(group.ids) and group.shapes[pointers[i]] in (shape, None)
    ]
    # Where the state tells no shape: matrices decay, vectors do not.
    fitting.sort(
        key=lambda i: (groups[i].shapes[pointers[i]] is None, (groups[i].weight_decay > 0) != (len(shape) > 1))
    )
    return [*fitting, -1] if len(shapes) - at > left else fitting


def _ambiguous(groups: Sequence[Group]) -> list[str]:
    """Say which shapes occur in groups of different settings, so that order alone decides."""
    settings: dict[tuple[int, ...] | None, set[tuple[float, float]]] = {}
    for group in groups:
        for shape in group.shapes:
            settings.setdefault(shape, set()).add((group.weight_decay, group.initial_lr))
    shared = [shape for shape, found in settings.items() if len(found) > 1]
    if not shared:
        return []
    if None in shared:
        return ["the optimizer keeps no state of some parameters: matrices are taken to be in the group that decays"]
    return [
        f"param groups of different settings both hold tensors of shape {'x'.join(map(str, shared[0] or ()))}: which "
        "is which is taken from their order"
    ]


def _by_shape(groups: Sequence[Group], weights: Mapping[str, Tensor]) -> tuple[dict[str, Held], list[str]]:
    """Match by shape alone: a shape that one group holds as often as the weights do."""
    counts = [Counter(g.shapes) for g in groups]
    names: dict[tuple[int, ...], list[str]] = {}
    for name, tensor in weights.items():
        names.setdefault(tuple(tensor.shape), []).append(name)
    found: dict[str, Held] = {}
    open_ = 0
    for shape, mine in names.items():
        holders = [i for i, count in enumerate(counts) if count[shape]]
        if len(holders) == 1 and counts[holders[0]][shape] == len(mine):
            found |= {name: Held(holders[0], {}) for name in mine}
        elif holders:
            open_ += len(mine)
    notes = ["param groups are matched to names by shape alone, as the order of the weights is not known"] * bool(found)
    if open_:
        notes.append(f"{open_} tensors could not be matched to a param group: give the model with --load")
    strange = [shape for count in counts for shape in count if shape is not None and shape not in names]
    if strange:
        notes.append(
            f"the optimizer holds a tensor of shape {'x'.join(map(str, strange[0]))} that the weights have not: its "
            "state is flattened or sharded (FSDP, DeepSpeed), or of another model"
        )
    return found, notes
