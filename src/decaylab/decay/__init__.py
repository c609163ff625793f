"""Weight-decay rules for any torch optimizer: `attach` installs one, `build` makes one by its name."""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "attach": "attachment",
    "handles": "attachment",
    "Handle": "attachment",
    "build": "factory",
    "TABLE": "registry",
    "Entry": "registry",
    "Rule": "rule",
    "L2": "rules.classic",
    "Decoupled": "rules.classic",
    "Independent": "rules.classic",
    "Constant": "rules.classic",
    "QuadraticLR": "rules.classic",
    "Corrected": "rules.classic",
    "Cautious": "rules.classic",
    "Scheduled": "rules.scheduled",
    "SphereProjection": "rules.projection",
    "FixedNorm": "rules.projection",
    "NormalizeAndProject": "rules.projection",
    "MaxNorm": "rules.projection",
    "WeightNormControl": "rules.norm_control",
    "Constrained": "rules.norm_control",
    "Hyperball": "rules.norm_control",
    "Rotational": "rules.rotational",
    "SelectiveProjection": "rules.fine_tuning",
    "L2ToAnchor": "rules.fine_tuning",
    "Powerpropagation": "related.powerpropagation",
    "powerpropagate": "related.powerpropagation",
    "tau_normalize": "related.tau_normalization",
    "HyperSparse": "related.hypersparse",
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
