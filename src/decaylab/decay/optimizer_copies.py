"""What happens to attached rules when an optimizer is copied or pickled: hooks stay behind, and that is said."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer

from decaylab.decay.optimizer_state import Checkpoint

_GETSTATE = "__getstate__"


def warn_when_copied(optimizer: Optimizer, attached: Callable[[], Sequence[Checkpoint]]) -> None:
    """Say that a copy has no rule, and let it carry the rule's state, so that attaching to it goes on from there.

    ``copy.copy``, ``copy.deepcopy`` and pickle ask an object for its ``__getstate__``, which torch's optimizers answer
    with their groups and states alone.

    Args:
        optimizer: The optimizer.
        attached: Gives the states of the rules that are attached to it.
    """
    if _GETSTATE in optimizer.__dict__:
        return

    def getstate() -> Any:
        state: Any = type(optimizer).__getstate__(optimizer)
        rules = attached()
        if not rules or not isinstance(state, dict):
            return state
        warnings.warn(
            f"the copy of {type(optimizer).__name__} has no {' and no '.join(each.rule_name for each in rules)}: "
            f"copies take no hooks along; attach the rule to the copy, and it goes on from here",
            stacklevel=4,
        )
        groups = [dict(group) for group in optimizer.param_groups]
        states = dict(optimizer.state)
        for each in rules:
            each.carry(groups, states)
        kind = type(optimizer.state)
        copied = kind(dict) if hasattr(optimizer.state, "default_factory") else kind()
        copied.update(states)
        return {**{k: v for k, v in state.items() if k not in _OURS}, "param_groups": groups, "state": copied}

    optimizer.__dict__[_GETSTATE] = getstate


_OURS = {_GETSTATE, "step", "_decaylab_handles", "_decaylab_stopped_handles", "_decaylab_step_guard"}
