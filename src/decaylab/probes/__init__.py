"""Probes: what weight decay does to a training run, measured without touching it.

Public names are loaded on first use: this package itself imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "PROBES": "decaylab.probes.table",
    "DEFAULT_PROBES": "decaylab.probes.table",
    "ProbeRow": "decaylab.probes.table",
    "Probe": "decaylab.probes.context",
    "Context": "decaylab.probes.context",
    "ProbeRunner": "decaylab.probes.runner",
    "watch": "decaylab.probes.log",
    "Log": "decaylab.probes.log",
    "Sink": "decaylab.probes.log",
    "Diagnosis": "decaylab.probes.diagnosis",
    "diagnose": "decaylab.probes.diagnosis",
    "gradient_noise": "decaylab.probes.noise",
    "measure": "decaylab.probes.standalone",
    "evaluation_twin": "decaylab.probes.twin",
    "Estimate": "decaylab.probes.estimate",
    "hessian_trace": "decaylab.probes.hessian",
    "gauss_newton_trace": "decaylab.probes.gauss_newton",
    "hessian_vector_product": "decaylab.probes.products",
    "gauss_newton_vector_product": "decaylab.probes.products",
    "top_eigenvalues": "decaylab.probes.eigenvalues",
    "spectral_density": "decaylab.probes.density",
    "jacobian_frobenius": "decaylab.probes.jacobian",
    "covariance_similarity": "decaylab.probes.covariance",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'decaylab.probes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
