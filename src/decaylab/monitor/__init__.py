"""Monitoring of any PyTorch training: a log of what decay does, its diagnosis and its chart.

Public names are loaded on first use: this package itself imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "watch": "decaylab.monitor.log",
    "Log": "decaylab.monitor.log",
    "Sink": "decaylab.monitor.log",
    "Diagnosis": "decaylab.monitor.diagnosis_result",
    "diagnose": "decaylab.monitor.diagnosis",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'decaylab.monitor' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
