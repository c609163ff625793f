"""decaylab inside other people's tools: the transformers Trainer, Lightning, and experiment trackers.

Public names are loaded on first use: this package itself imports neither torch nor any of those tools.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "TransformersCallback": "decaylab.integrations.transformers",
    "LightningCallback": "decaylab.integrations.lightning",
    "TensorBoardSink": "decaylab.integrations.trackers",
    "WandbSink": "decaylab.integrations.trackers",
    "MlflowSink": "decaylab.integrations.trackers",
    "open_sink": "decaylab.integrations.trackers",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'decaylab.integrations' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
