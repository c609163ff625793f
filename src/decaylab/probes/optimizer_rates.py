"""Learning rate and decay in force on each parameter, read from the optimizer as it steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.conventions.equilibrium import Optimizer as Family
from decaylab.conventions.equilibrium import RotationInputs, update_ratio
from decaylab.probes.active_decay import Decay, DecayReader, Scalar
from decaylab.probes.cumulative_decay import Elapsed

_NAN = math.nan


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
        decaying: Whether the parameter decays, or has, at a known or measured rate; on the host, so that it can choose
            keys. Not one that no step has moved yet, for want of a gradient.
        sharing: Whether the parts of its update that are decay and that are not can be told apart. Not where this step
            did not move it.
        predictable: Whether its rotation in equilibrium is known, and this step moved it.
        held: Whether the optimizer holds it.
        covered: Whether anything pulls it to zero, at whatever rate, and a step has moved it; where nothing pulls any
            parameter to zero, whether its norm is held or an anchor pulls at it.
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
    covered: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class MeasuredDecay:
    """What rules without a stated share took in a recorded step, as vectors (P,) over the parameters.

    Attributes:
        shares: Share of the old weight.
        coefficients: Coefficient of decay through the gradient.
        long_run: Share taken per step in the long run.
        known: Whether it was measured.
    """

    shares: Tensor
    coefficients: Tensor
    long_run: Tensor
    known: tuple[bool, ...]


def read_rates(optimizer: Optimizer, reader: DecayReader | None = None) -> list[GroupRates]:
    """Read every param group and every attached rule as they are for the step that is about to be taken.

    Args:
        optimizer: The optimizer.
        reader: Reads its decay; one that is kept remembers the largest learning rate. None makes one.
    """
    reader = reader or DecayReader(optimizer)
    found = []
    for index, group in enumerate(optimizer.param_groups):
        lr = group.get("lr")
        ratio = _rotation_ratio(reader.family(index), group)
        found.append(GroupRates(_NAN if lr is None else lr, ratio, tuple(reader.read(index))))
    return found


def _rotation_ratio(family: str | None, group: Mapping[str, Any]) -> float:
    betas: Any = group.get("betas") or (group.get("beta1"), group.get("beta2"))
    if family is None or (family != "sgd" and (len(betas) < 2 or None in betas[:2])):
        return _NAN
    coefficients = (0.0, 0.0) if family == "sgd" else (float(betas[0]), float(betas[1]))
    return _ratio_of(family, coefficients, float(group.get("momentum") or 0.0))


@lru_cache
def _ratio_of(family: str, betas: tuple[float, float], momentum: float) -> float:
    ratio = update_ratio(RotationInputs(optimizer=cast(Family, family), betas=betas, momentum=momentum))
    return _NAN if ratio is None else ratio


def spread(
    optimizer: Optimizer,
    groups: Sequence[GroupRates],
    parameters: Iterable[Tensor],
    device: torch.device,
    dtype: torch.dtype,
    elapsed: Elapsed | None = None,
    measured: MeasuredDecay | None = None,
) -> Rates:
    """Spread the rates of groups over parameters.

    Args:
        optimizer: The optimizer; tells the group of a parameter.
        groups: Rates by group.
        parameters: The parameters, in the order of the vectors.
        device: Where the vectors go.
        dtype: Their type.
        elapsed: Decay so far, of the same parameters; None where no step was taken.
        measured: What was measured of rules that state no share, of the same parameters.

    Returns:
        The vectors.
    """
    place = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
    parameters = list(parameters)
    passed: Mapping[str, Scalar] = elapsed.sums() if elapsed is not None else {}
    missed = elapsed.missed() if elapsed is not None else {}
    stepped, ever = (elapsed.stepped, elapsed.ever) if elapsed is not None else ([True] * len(parameters),) * 2
    kinds: dict[tuple[int, tuple[int, ...], int | None], int] = {}  # parameters that share all rates
    at, steered = [], []
    for i, p in enumerate(parameters):
        group = place.get(id(p), -1)
        decays = groups[group].decays if group >= 0 else ()
        chosen = tuple(k for k, d in enumerate(decays) if _pulls(d) and (d.covers is None or d.covers(p)))
        own = i if i in missed and chosen else None
        at.append(kinds.setdefault((group, chosen, own), len(kinds)))
        steered.append(ever[i] and any(d.target != "zero" and (d.covers is None or d.covers(p)) for d in decays))
    rows: list[tuple[Scalar, ...]] = []
    flags: list[tuple[bool, ...]] = []
    for group, chosen, own in kinds:
        if group < 0:
            rows.append((0.0, 0.0, 0.0, 0.0, 0.0, _NAN))
            flags.append((False,) * 6)
            continue
        acting, ratio = [groups[group].decays[k] for k in chosen], groups[group].rotation_ratio
        stated = [d for d in acting if d.knowledge != "measured"]
        decay = sum((d.decay for d in stated), 0.0)
        coupled = sum((d.coupled for d in stated), 0.0)
        shrink = sum((d.shrink for d in stated), 0.0)
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
                has_moved and bool(acting),
                len(acting) > len(stated),
            )
        )
    where = torch.tensor(at, device=device)
    lr, decay_, coupled_, shrink_, so_far_, ratio_ = (
        _column(column, device, dtype)[where] for column in zip(*rows, strict=True)
    )
    decaying, sharing, predictable, held, covered, asked = zip(*(flags[i] for i in at), strict=True)
    if measured is not None:
        shares, coefficients = measured.shares.to(shrink_), measured.coefficients.to(shrink_)
        decay_, coupled_ = decay_ + shares, coupled_ + coefficients
        shrink_ = shrink_ + measured.long_run.to(shrink_)
        found = [known and wanted for known, wanted in zip(measured.known, asked, strict=True)]
        decaying = tuple(map(_either, decaying, found, ever))
        sharing = tuple(map(_either, sharing, found, stepped))
        known_ratio = [not math.isnan(rows[i][5]) for i in at]
        predictable = tuple(
            old or (new and there and ratio)
            for old, new, there, ratio in zip(predictable, found, stepped, known_ratio, strict=True)
        )
    if not any(covered):
        covered = tuple(steered)
    if elapsed is not None:
        so_far_ = so_far_ + elapsed.held(so_far_)
    return Rates(lr, decay_, coupled_, shrink_, so_far_, ratio_, decaying, sharing, predictable, held, covered)


def _either(old: bool, new: bool, where: bool) -> bool:
    return old or (new and where)


def _pulls(decay: Decay) -> bool:
    """Whether it takes weights towards zero: rules that hold a norm or pull to an anchor have no timescale."""
    return decay.target == "zero" and decay.knowledge != "none"


def _positive(x: Scalar) -> bool:
    return isinstance(x, Tensor) or x > 0  # what a tensor holds is not worth waiting for


def _is_nan(x: Scalar) -> bool:
    return not isinstance(x, Tensor) and math.isnan(x)


def _column(values: Sequence[Scalar], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Make a vector of numbers, tensors among them copied without waiting for them."""
    column = torch.tensor([0.0 if isinstance(x, Tensor) else float(x) for x in values], dtype=dtype).to(device)
    for i, x in enumerate(values):
        if isinstance(x, Tensor):
            column[i] = x.detach().to(device=device, dtype=dtype).reshape(())
    return column
