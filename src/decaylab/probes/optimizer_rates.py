"""Which learning rate and which decay are in force on each parameter, read from the optimizer as it steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.probes.active_decay import SGD_FAMILY, Decay, Scalar, decays_of, families
from decaylab.probes.cumulative_decay import Elapsed

_NAN = math.nan
_ADAM, _LION = {"Adam", "AdamW", "NAdam", "RAdam", "Adamax"}, {"Lion"}


@dataclass(frozen=True)
class GroupRates:
    """What one param group does in a step.

    Attributes:
        lr: Learning rate. One that is a tensor stays a tensor, so that nothing waits for the device.
        rotation_ratio: r, squared length of one update over the variance that it adds in the long run, see
            `decaylab.probes.rotation`. NaN where it is not known.
        decays: What decays its parameters.
    """

    lr: Scalar
    rotation_ratio: float
    decays: tuple[Decay, ...]


@dataclass(frozen=True, eq=False)
class Rates:
    """`GroupRates` spread over parameters: vectors (P,), float; parameters outside the optimizer have lr 0.

    Attributes:
        lr: Learning rate.
        decay: Share of the old weight taken away beside the update.
        coupled: Coefficient of decay through the gradient.
        shrink: Share taken away per step in the long run.
        passed: Sum of ``shrink`` over all steps so far that moved the parameter: how many timescales of decay have
            passed.
        rotation_ratio: r of the optimizer.
        decaying: Whether the parameter decays, or has, at a known rate; on the host, so that it can choose keys. Not
            one that no step has moved yet, for want of a gradient.
        sharing: Whether the parts of its update that are decay and that are not can be told apart. Not where this step
            did not move it.
        predictable: Whether its rotation in equilibrium is known, and this step moved it.
        held: Whether the optimizer holds it.
    """

    lr: Tensor
    decay: Tensor
    coupled: Tensor
    shrink: Tensor
    passed: Tensor
    rotation_ratio: Tensor
    decaying: tuple[bool, ...]
    sharing: tuple[bool, ...]
    predictable: tuple[bool, ...]
    held: tuple[bool, ...]


def read_rates(optimizer: Optimizer) -> list[GroupRates]:
    """Read every param group and every attached rule as they are for the step that is about to be taken."""
    names = families(optimizer)
    return [
        GroupRates(group.get("lr", _NAN), _rotation_ratio(names, group), tuple(decays_of(optimizer, index)))
        for index, group in enumerate(optimizer.param_groups)
    ]


def _rotation_ratio(names: frozenset[str], group: Mapping[str, Any]) -> float:
    if names & _LION:
        b1, b2 = group["betas"]
        return float(math.pi / 2 * ((1 - b1) ** 2 + b1**2 * (1 - b2) / (1 + b2)))
    if names & _ADAM:
        b1 = float(group["betas"][0])
        return (1 - b1) / (1 + b1)
    if names & SGD_FAMILY:
        momentum = float(group.get("momentum", 0.0))
        return (1 - momentum) / (1 + momentum)
    return _NAN


def spread(
    optimizer: Optimizer,
    groups: Sequence[GroupRates],
    parameters: Iterable[Tensor],
    device: torch.device,
    dtype: torch.dtype,
    elapsed: Elapsed | None = None,
) -> Rates:
    """Spread the rates of groups over parameters.

    Args:
        optimizer: The optimizer; tells the group of a parameter.
        groups: Rates by group.
        parameters: The parameters, in the order of the vectors.
        device: Where the vectors go.
        dtype: Their type.
        elapsed: Decay so far, of the same parameters; None where no step was taken.

    Returns:
        The vectors.
    """
    place = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
    parameters = list(parameters)
    passed: Mapping[str, Scalar] = elapsed.sums() if elapsed is not None else {}
    missed = elapsed.missed() if elapsed is not None else {}
    stepped, ever = (elapsed.stepped, elapsed.ever) if elapsed is not None else ([True] * len(parameters),) * 2
    kinds: dict[tuple[int, tuple[int, ...], int | None], int] = {}  # parameters that share all rates
    at = []
    for i, p in enumerate(parameters):
        group = place.get(id(p), -1)
        decays = groups[group].decays if group >= 0 else ()
        chosen = tuple(k for k, d in enumerate(decays) if d.covers is None or d.covers(p))
        own = i if i in missed and chosen else None
        at.append(kinds.setdefault((group, chosen, own), len(kinds)))
    rows: list[tuple[Scalar, ...]] = []
    flags: list[tuple[bool, bool, bool, bool]] = []
    for group, chosen, own in kinds:
        if group < 0:
            rows.append((0.0, 0.0, 0.0, 0.0, 0.0, _NAN))
            flags.append((False, False, False, False))
            continue
        acting, ratio = [groups[group].decays[k] for k in chosen], groups[group].rotation_ratio
        decay = sum((d.decay for d in acting), 0.0)
        coupled = sum((d.coupled for d in acting), 0.0)
        shrink = sum((d.shrink for d in acting), 0.0)
        lacking = missed[own] if own is not None else {}
        so_far = sum((passed.get(d.key, 0.0) - lacking.get(d.key, 0.0) for d in acting), 0.0)
        rows.append((groups[group].lr, decay, coupled, shrink, so_far, ratio))
        moved, has_moved = (stepped[own], ever[own]) if own is not None else (True, True)
        flags.append(
            (
                has_moved and (_positive(shrink) or (_positive(so_far) and not _is_nan(shrink))),
                moved and (_positive(decay) or _positive(coupled)) and not _is_nan(decay),
                moved and _positive(shrink) and not math.isnan(ratio),
                True,
            )
        )
    where = torch.tensor(at, device=device)
    lr, decay_, coupled_, shrink_, so_far_, ratio_ = (
        _column(column, device, dtype)[where] for column in zip(*rows, strict=True)
    )
    decaying, sharing, predictable, held = zip(*(flags[i] for i in at), strict=True)
    return Rates(lr, decay_, coupled_, shrink_, so_far_, ratio_, decaying, sharing, predictable, held)


def _positive(x: Scalar) -> bool:
    return isinstance(x, Tensor) or x > 0  # what a tensor holds is not worth waiting for


def _is_nan(x: Scalar) -> bool:
    return not isinstance(x, Tensor) and math.isnan(x)


def _column(values: Sequence[Scalar], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Make a vector of numbers, tensors among them copied without waiting for them."""
    column = torch.tensor([0.0 if isinstance(x, Tensor) else float(x) for x in values], dtype=dtype).to(device)
    for i, x in enumerate(values):
        if isinstance(x, Tensor):
            column[i] = x.detach().to(device=device, dtype=dtype)
    return column
