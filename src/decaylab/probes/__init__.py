"""Probes: what weight decay does to a training run, measured without touching it.

Public names are loaded on first use: this package itself imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "PROBES": "decaylab.probes.registry",
    "DEFAULT_PROBES": "decaylab.probes.registry",
    "ProbeRow": "decaylab.probes.registry",
    "Probe": "decaylab.probes.context",
    "Context": "decaylab.probes.context",
    "ProbeRunner": "decaylab.probes.runner",
    "measure": "decaylab.probes.measurement",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'decaylab.probes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
