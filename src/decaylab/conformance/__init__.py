"""Does an optimizer decay as it says? Identities and golden cases for any optimizer class, whoever wrote it.

Public names are loaded on first use: this package itself imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "GOLDEN": "decaylab.conformance.cases",
    "IDENTITIES": "decaylab.conformance.identities",
    "Finding": "decaylab.conformance.finding",
    "MEANINGS": "decaylab.conformance.meaning",
    "Report": "decaylab.conformance.report",
    "check": "decaylab.conformance.report",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'decaylab.conformance' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
