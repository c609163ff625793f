"""Launching: what is missing from a store, trained by leased workers.

Public names are loaded on first use: this package itself imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "Run": "decaylab.launch.scheduler",
    "LaunchReport": "decaylab.launch.report",
    "launch": "decaylab.launch.backends.local",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'decaylab.launch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
