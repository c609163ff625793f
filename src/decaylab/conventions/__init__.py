"""What a lambda means: how much a weight shrinks, in every convention in use, and what follows from it.

Plain maths without torch. Public names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decaylab.conventions.equilibrium import RotationInputs, relative_update, rms_weight
    from decaylab.conventions.explanation import Equivalent, Explanation, explain
    from decaylab.conventions.length import RunSize, run_size
    from decaylab.conventions.products import same_total_decay, shrinkage
    from decaylab.conventions.table import CONVENTIONS, Convention, Setting, convert, peak_decay

_LAZY = {
    "CONVENTIONS": "table",
    "Convention": "table",
    "Setting": "table",
    "convert": "table",
    "peak_decay": "table",
    "shrinkage": "products",
    "same_total_decay": "products",
    "RotationInputs": "equilibrium",
    "relative_update": "equilibrium",
    "rms_weight": "equilibrium",
    "RunSize": "length",
    "run_size": "length",
    "Equivalent": "explanation",
    "Explanation": "explanation",
    "explain": "explanation",
}
__all__ = [
    "CONVENTIONS",
    "Convention",
    "Equivalent",
    "Explanation",
    "RotationInputs",
    "RunSize",
    "Setting",
    "convert",
    "explain",
    "peak_decay",
    "relative_update",
    "rms_weight",
    "run_size",
    "same_total_decay",
    "shrinkage",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"decaylab.conventions.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'decaylab.conventions' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
