"""Weight-decay rules for any torch optimizer: `attach` installs one, `build` makes one by its name."""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "attach": "install",
    "handles": "install",
    "Handle": "install",
    "build": "by_name",
    "TABLE": "table",
    "Entry": "table",
    "Rule": "rule",
    "L2": "classic",
    "Decoupled": "classic",
    "Independent": "classic",
    "Constant": "classic",
    "QuadraticLR": "classic",
    "Corrected": "classic",
    "Cautious": "classic",
    "Scheduled": "scheduled",
    "SphereProjection": "projection",
    "FixedNorm": "projection",
    "NormalizeAndProject": "projection",
    "MaxNorm": "projection",
    "WeightNormControl": "norm_control",
    "Constrained": "norm_control",
    "Hyperball": "norm_control",
    "Rotational": "rotational",
    "SelectiveProjection": "finetune",
    "L2ToAnchor": "finetune",
    "Powerpropagation": "powerpropagation",
    "powerpropagate": "powerpropagation",
    "tau_normalize": "long_tail",
    "HyperSparse": "hypersparse",
}
_BELOW = {"DecaySchedule": "decaylab.schedules"}
__all__ = [*_LAZY, *_BELOW]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"decaylab.decay.{_LAZY[name]}"), name)
    if name in _BELOW:
        return getattr(importlib.import_module(_BELOW[name]), name)
    raise AttributeError(f"module 'decaylab.decay' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
