"""The torch optimizer inside the wrappers of training frameworks, and inside optimizers that step another one."""

from __future__ import annotations

import re
from typing import Any

from torch.optim import Optimizer

from decaylab.errors import DecaylabError

# Methods of a class that move the weights beside step(): first_step and second_step (SAM), ascent_step, fused_backward.
_OTHER_STEPS = re.compile(r"^((first|second|third|ascent|descent)_step|step_(first|second)|fused_(step|backward))$")


def inner_optimizer(optimizer: Any) -> Optimizer:
    """Take off the wrappers that accelerate, Lightning and others put around a torch optimizer.

    Methods such as SAM, which are stepped by ``first_step`` and ``second_step`` and give the second one to an optimizer
    inside, are taken off too: that optimizer's step is the one that moves the weights.

    Args:
        optimizer: An optimizer, or what holds one in ``.optimizer``.

    Returns:
        The optimizer whose ``step()`` moves the weights.

    Raises:
        DecaylabError: There is no torch optimizer inside, or it lacks the hooks that torch gives to every one.
    """
    given = optimizer
    while not _has_hooks(optimizer) or _is_lightnings(optimizer):
        inner = getattr(optimizer, "optimizer", None)
        if inner is None or inner is optimizer:
            raise _no_optimizer(given, optimizer)
        optimizer = inner
    found: Optimizer = optimizer
    stepped = _stepped_inside(found) if other_steps(found) else None
    return found if stepped is None else inner_optimizer(stepped)


def _has_hooks(optimizer: Any) -> bool:
    return isinstance(optimizer, Optimizer) and hasattr(optimizer, "_optimizer_step_pre_hooks")


def _is_lightnings(optimizer: Any) -> bool:
    """Whether this is Lightning's wrapper: made a subclass of the optimizer's class, with all of its attributes."""
    wraps = any(kind.__name__ == "LightningOptimizer" for kind in type(optimizer).__mro__)
    return wraps and isinstance(getattr(optimizer, "optimizer", None), Optimizer)


def other_steps(optimizer: Optimizer) -> list[str]:
    """Return the methods beside ``step`` with which an optimizer's class moves weights, in alphabetical order."""
    names = {
        name for kind in type(optimizer).__mro__ if not kind.__module__.startswith("torch.") for name in vars(kind)
    }
    return sorted(name for name in names if _OTHER_STEPS.match(name) and callable(getattr(optimizer, name, None)))


def _stepped_inside(optimizer: Optimizer) -> Optimizer | None:
    """The one optimizer among the attributes that holds the same parameters."""
    mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
    found = []
    for value in vars(optimizer).values():
        if isinstance(value, Optimizer) and value is not optimizer:
            theirs = {id(p) for group in value.param_groups for p in group["params"]}
            if theirs == mine:
                found.append(value)
    return found[0] if len(found) == 1 else None


def _no_optimizer(given: Any, innermost: Any) -> DecaylabError:
    name = type(given).__name__
    if isinstance(innermost, Optimizer):
        return DecaylabError(
            f"{type(innermost).__name__} has no step hooks: its __init__ does not call super().__init__(params, "
            f"defaults) of torch.optim.Optimizer; call it there"
        )
    if isinstance(given, (list, tuple, dict)):
        return DecaylabError(f"expected one torch optimizer, got a {name}: give them one at a time")
    inside = "" if innermost is given else f", with {type(innermost).__name__} inside"
    return DecaylabError(f"expected a torch optimizer, got {name}{inside}: give a torch.optim.Optimizer")
