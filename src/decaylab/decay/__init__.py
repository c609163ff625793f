"""Weight-decay rules for any torch optimizer: `attach` installs one, `build` makes one by its name."""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "attach": "install",
    "handles": "install",
    "Handle": "install",
    "build": "table",
    "Rule": "rule",
    "L2": "classic",
    "Decoupled": "classic",
    "SphereProjection": "projection",
}
__all__ = [*_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"decaylab.decay.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'decaylab.decay' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
