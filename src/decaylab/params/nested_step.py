"""Steps inside steps: where a class's ``step`` calls that of its base class, torch's hooks run twice."""

from __future__ import annotations

import sys
from types import FrameType

from torch.optim import Optimizer

_MODULE, _WRAPPER = "torch.optim.optimizer", "wrapper"  # torch's function around every step that has hooks


def is_nested(optimizer: Optimizer) -> bool:
    """Whether the hook that asks is one of an inner step: the outer one's hooks have run, or will.

    Args:
        optimizer: The optimizer whose hook asks.
    """
    if not may_nest(type(optimizer)):
        return False
    frame: FrameType | None = sys._getframe(1)
    seen = 0
    while frame is not None:
        is_wrapper = frame.f_code.co_name == _WRAPPER and frame.f_globals.get("__name__") == _MODULE
        if is_wrapper and frame.f_locals.get("self") is optimizer:
            seen += 1
            if seen > 1:
                return True
        frame = frame.f_back
    return False


_KNOWN: dict[type, bool] = {}


def may_nest(kind: type) -> bool:
    """Whether a class of optimizers has a ``step`` of its own beside that of a base class.

    Args:
        kind: The class.
    """
    if kind not in _KNOWN:
        _KNOWN[kind] = sum("step" in vars(base) for base in kind.__mro__ if base is not Optimizer) > 1
    return _KNOWN[kind]
