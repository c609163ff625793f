"""Curvature of any model: traces, eigenvalues, densities, Jacobians and the covariance of gradient noise.

Public names are loaded on first use: this package itself imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "Estimate": "decaylab.curvature.estimate",
    "hessian_trace": "decaylab.curvature.hessian",
    "gauss_newton_trace": "decaylab.curvature.gauss_newton",
    "hessian_vector_product": "decaylab.curvature.operators",
    "gauss_newton_vector_product": "decaylab.curvature.operators",
    "top_eigenvalues": "decaylab.curvature.eigenvalues",
    "spectral_density": "decaylab.curvature.density",
    "jacobian_frobenius": "decaylab.curvature.jacobian",
    "covariance_similarity": "decaylab.curvature.noise_covariance",
    "gradient_noise": "decaylab.curvature.per_sample_noise",
    "evaluation_twin": "decaylab.curvature.shared_view",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'decaylab.curvature' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
