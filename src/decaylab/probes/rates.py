"""Which learning rate and which decay are in force on each parameter, read from the optimizer as it steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

Scalar: TypeAlias = float | Tensor

_NAN = math.nan
# How an optimizer turns gradients into steps, by the name of its class or of a class it derives from.
_SGD, _ADAM, _LION = {"SGD", "SGDW"}, {"Adam", "AdamW", "NAdam", "RAdam", "Adamax"}, {"Lion"}
_COUPLED = {"SGD", "Adagrad", "RMSprop", "Adadelta", "Adamax", "Rprop", "ASGD"}


@dataclass(frozen=True)
class GroupRates:
    """What one param group does to its weights in a step.

    Attributes:
        lr: Learning rate.
        weight_decay: The group's coefficient.
        decay: The share d of the old weight that the step takes away, ``w <- (1 - d) w``; ``lr * weight_decay`` in
            torch's conventions.
        shrink: The share c of the weight that decay takes away per step in the long run. The same as ``decay`` for
            decoupled decay. With L2 and SGD the decay goes through the momentum buffer:
            ``c = lr * weight_decay * (1 - dampening) / (1 - momentum)``. NaN for L2 with an adaptive optimizer: there
            the decay is divided by the size of the gradient and has no rate of its own.
        rotation_ratio: r, squared length of one update over the variance that it adds in the long run, see
            `decaylab.probes.update`. NaN where it is not known.
        decoupled: Whether decay acts on the weight beside the update (True) or through the gradient (False).
    """

    lr: Scalar
    weight_decay: Scalar
    decay: Scalar
    shrink: Scalar
    rotation_ratio: float
    decoupled: bool


@dataclass(frozen=True, eq=False)
class Rates:
    """`GroupRates` spread over parameters: each a float vector (P,); parameters outside the optimizer have lr 0."""

    lr: Tensor
    weight_decay: Tensor
    decay: Tensor
    shrink: Tensor
    rotation_ratio: Tensor
    decoupled: Tensor


def inner_optimizer(optimizer: Any) -> Optimizer:
    """Take off the wrappers that accelerate, Lightning and others put around a torch optimizer."""
    while not isinstance(optimizer, Optimizer) or not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        inner = getattr(optimizer, "optimizer", None)
        if inner is None:
            raise TypeError(f"expected a torch optimizer, got {type(optimizer).__name__}")
        optimizer = inner
    return optimizer


def group_rates(optimizer: Optimizer, group: Mapping[str, Any]) -> GroupRates:
    """Read one param group as it is now.

    Args:
        optimizer: The optimizer that owns the group; its class says how it uses the group's numbers.
        group: One of its ``param_groups``.

    Returns:
        The rates. A learning rate that is a tensor stays a tensor, so that nothing waits for the device.
    """
    families = {cls.__name__ for cls in type(optimizer).__mro__}
    lr, weight_decay = group.get("lr", _NAN), group.get("weight_decay", 0.0)
    decoupled = _is_decoupled(families, group)
    decay = lr * weight_decay
    if decoupled or (not isinstance(weight_decay, Tensor) and weight_decay == 0):
        shrink = decay
    elif families & _SGD:
        momentum = group.get("momentum", 0.0)
        shrink = decay * ((1 - group.get("dampening", 0.0)) / (1 - momentum) if momentum else 1.0)
    else:
        shrink = _NAN
    return GroupRates(lr, weight_decay, decay, shrink, _rotation_ratio(families, group), decoupled)


def _is_decoupled(families: set[str], group: Mapping[str, Any]) -> bool:
    flag = group.get("decoupled_weight_decay")
    if flag is not None:
        return bool(flag)
    if families & {"AdamW"}:  # before torch 2.7 without the flag
        return True
    return not families & (_COUPLED | {"Adam", "NAdam", "RAdam"})


def _rotation_ratio(families: set[str], group: Mapping[str, Any]) -> float:
    if families & _LION:
        b1, b2 = group["betas"]
        return float(math.pi / 2 * ((1 - b1) ** 2 + b1**2 * (1 - b2) / (1 + b2)))
    if families & _ADAM:
        b1 = float(group["betas"][0])
        return (1 - b1) / (1 + b1)
    if families & _SGD:
        momentum = float(group.get("momentum", 0.0))
        return (1 - momentum) / (1 + momentum)
    return _NAN


def spread(groups: Sequence[GroupRates], at: Tensor, device: torch.device, dtype: torch.dtype) -> Rates:
    """Spread the rates of groups over parameters.

    Args:
        groups: Rates by group; a last row is added for parameters that are in no group.
        at: Index of each parameter's group, shape (P,), on ``device``.
        device: Where the vectors go.
        dtype: Their type.

    Returns:
        One vector a rate.
    """
    rows = [(g.lr, g.weight_decay, g.decay, g.shrink, g.rotation_ratio, float(g.decoupled)) for g in groups]
    rows.append((0.0, 0.0, 0.0, 0.0, _NAN, 1.0))
    lr, weight_decay, decay, shrink, ratio, decoupled = (
        spread_column(column, at, device, dtype) for column in zip(*rows, strict=True)
    )
    return Rates(lr, weight_decay, decay, shrink, ratio, decoupled.bool())


def spread_column(column: Sequence[Scalar], at: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Spread one number a group over parameters; tensors are copied without waiting for them."""
    numbers = [0.0 if isinstance(x, Tensor) else float(x) for x in column]
    values = torch.tensor(numbers, dtype=dtype).to(device)
    for i, x in enumerate(column):
        if isinstance(x, Tensor):
            values[i] = x.detach().to(device=device, dtype=dtype)
    return values[at]
