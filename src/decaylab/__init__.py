"""decaylab: what weight decay does to your training, and how much of it to use.

Public names are loaded on first use, so that ``import decaylab`` stays fast and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "attach": "decaylab.decay",
    "watch": "decaylab.monitor",
    "roles": "decaylab.params",
    "decay_groups": "decaylab.params",
    "audit": "decaylab.params",
    "explain": "decaylab.conventions",
    "advise": "decaylab.advice",
    "DecaylabError": "decaylab.errors",
}
__all__ = [*_LAZY, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'decaylab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
