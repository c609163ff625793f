"""Whether an optimizer's ``weight_decay`` does what its name says, tried on a small copy of one of its groups."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_PLAIN = (bool, int, float, str, type(None))
_STEPS, _RATE = 3, 0.01


def weight_decay_acts(optimizer: Optimizer, group: Mapping[str, Any]) -> bool | None:
    """Tell whether a group's ``weight_decay`` changes what a step does; for one of 0, whether weights shrink anyway.

    Three steps of a copy of the optimizer, with two by two weights of its own, are compared: with the coefficient and
    without it, or, where it is 0, on gradients of 0. The optimizer, its parameters and the random state stay as they
    are.

    Returns:
        None where that is not tried: torch's own optimizers, whose coefficients are known to act, and optimizers that
        hold more than numbers, so that a copy would share it.
    """
    kind: Any = type(optimizer)
    if kind.__module__.startswith("torch.optim") or not _is_plain(optimizer):
        return None
    number = group.get("weight_decay")
    own = float(number) if isinstance(number, (int, float, Tensor)) else 0.0
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            if own:
                return not torch.equal(_run(optimizer, group, own, 1.0), _run(optimizer, group, 0.0, 1.0))
            return not torch.equal(_run(optimizer, group, None, 0.0), _start())
    except Exception:  # whatever a class of somebody else needs that a copy lacks
        return None


def _start() -> Tensor:
    return torch.tensor([[1.0, -0.5], [0.25, 2.0]])


def _run(optimizer: Optimizer, group: Mapping[str, Any], weight_decay: float | None, scale: float) -> Tensor:
    torch.manual_seed(0)
    weight = nn.Parameter(_start())
    copied = {key: value for key, value in group.items() if key != "params"}
    lr = copied.get("lr")
    if lr is not None:
        copied["lr"] = float(lr) or _RATE
    if weight_decay is not None:
        copied["weight_decay"] = weight_decay
    twin: Any = object.__new__(type(optimizer))
    twin.__dict__.update({name: value for name, value in optimizer.__dict__.items() if name not in _held(optimizer)})
    for name in optimizer.__dict__:
        if name.endswith("_hooks"):
            twin.__dict__[name] = OrderedDict()
    twin.__dict__["state"] = defaultdict(dict)
    twin.__dict__["param_groups"] = [{**copied, "params": [weight]}]
    for t in range(_STEPS):
        weight.grad = scale * torch.tensor([[0.3, -0.2], [0.1, 0.5]]) * (t + 1)
        twin.step()
    return weight.detach().clone()


def _held(optimizer: Optimizer) -> set[str]:
    """Attributes that a copy must not share."""
    return {
        name
        for name in optimizer.__dict__
        if name in ("state", "param_groups", "step", "__getstate__") or name.startswith("_decaylab") or "hooks" in name
    }


def _is_plain(optimizer: Optimizer) -> bool:
    """Whether all that an optimizer holds beside its groups and states are numbers and words."""
    held = _held(optimizer) | {"defaults"}
    values = [value for name, value in optimizer.__dict__.items() if name not in held]
    settings = [value for group in optimizer.param_groups for key, value in group.items() if key != "params"]
    return all(_plain(value) for value in (*values, *settings))


def _plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_plain(item) for item in value)
    return isinstance(value, _PLAIN) or (isinstance(value, Tensor) and value.numel() == 1)
