"""The database of runs and metrics.

Public names are loaded on first use: this package itself imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "Store": "decaylab.store.store",
    "RunRow": "decaylab.store.records",
    "MetricWriter": "decaylab.store.metric_writer",
    "LeaseLost": "decaylab.store.metric_writer",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'decaylab.store' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
