"""Which weight decay, learning rate and batch size published fits and timescales recommend for a run.

Plain maths without torch; units are in the names. Public names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decaylab.advice import deepseek, power_lines, step_law, timescale
    from decaylab.advice.advising import Advice, advise
    from decaylab.advice.carry_over import Reference
    from decaylab.advice.recommendation import Recommendation

_MODULES = ("deepseek", "power_lines", "step_law", "timescale")
_LAZY = {"Advice": "advising", "Reference": "carry_over", "advise": "advising", "Recommendation": "recommendation"}
__all__ = ["Advice", "Recommendation", "Reference", "advise", "deepseek", "power_lines", "step_law", "timescale"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"decaylab.advice.{_LAZY[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"decaylab.advice.{name}")
    raise AttributeError(f"module 'decaylab.advice' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
