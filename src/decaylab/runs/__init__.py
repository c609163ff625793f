"""The database of runs and metrics, and the launcher that trains what is missing from it.

Public names are loaded on first use; none of them imports torch in this process.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "Store": "decaylab.runs.store",
    "RunRow": "decaylab.runs.rows",
    "MetricWriter": "decaylab.runs.writer",
    "LeaseLost": "decaylab.runs.writer",
    "Run": "decaylab.runs.queue",
    "LaunchReport": "decaylab.runs.launch_report",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'decaylab.runs' has no attribute {name!r}")
