"""Choice of the parameters that decay: roles, parameter groups, an audit table, scale invariance.

Public names are loaded on first use: this package itself imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "ROLES": "decaylab.params.role",
    "UNKNOWN": "decaylab.params.role",
    "Assignment": "decaylab.params.role",
    "ReportedRole": "decaylab.params.role",
    "Role": "decaylab.params.role",
    "assign": "decaylab.params.role",
    "roles": "decaylab.params.role",
    "decay_groups": "decaylab.params.groups",
    "decayed": "decaylab.params.groups",
    "Audit": "decaylab.params.table",
    "AuditRow": "decaylab.params.table",
    "audit": "decaylab.params.table",
    "ScaleInvariance": "decaylab.params.invariance",
    "jointly_scale_invariant": "decaylab.params.invariance",
    "scale_invariant": "decaylab.params.invariance",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'decaylab.params' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
