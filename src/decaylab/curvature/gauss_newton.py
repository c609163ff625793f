r"""How large is the trace of the Gauss-Newton matrix, exactly where that is cheap?

:math:`\mathrm{Tr}\, G = \frac1N \sum_n \sum_j \|\nabla_\theta \langle u_{nj}, z_n \rangle\|^2` with
:math:`S_n = \sum_j u_{nj} u_{nj}^\top`: a closed form over C - 1 rows a point for softmax cross-entropy, which needs
no random vectors at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from decaylab.curvature.estimate import Estimate
from decaylab.curvature.hutchinson import hutchinson
from decaylab.curvature.importance_sampling import OutputRows, sum_to_accuracy
from decaylab.curvature.model_copy import plain_kernels
from decaylab.curvature.output_factors import kind_of_loss
from decaylab.curvature.per_sample_norms import GhostNorms
from decaylab.curvature.prepare import objective
from decaylab.curvature.shared_view import unwrap
from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError, unknown
from decaylab.params import roles as roles_of

GaussNewtonMethod = Literal["auto", "exact", "sampled", "hutchinson"]
_METHODS = ("auto", "exact", "sampled", "hutchinson")


def gauss_newton_trace(
    model: nn.Module,
    loss_fn: LossFunction | nn.Module,
    batches: Iterable[Any],
    rel_error: float = 0.02,
    *,
    method: GaussNewtonMethod = "auto",
    max_matvecs: int = 1000,
    seed: int = 0,
    chunk_size: int | None = None,
    roles: Mapping[str, str] | None = None,
) -> Estimate:
    r"""Estimate :math:`\mathrm{Tr}\, G`, the Gauss-Newton part of the trace of the Hessian, in loss per squared weight.

    Args:
        model: The model, left alone; measured in eval mode and at least float32.
        loss_fn: Mean loss, see `decaylab.curvature.prepare.objective`.
        batches: The points, see there.
        rel_error: Standard error at which to stop, relative to the trace; 0 for the exact value where there is one.
        method: ``"exact"`` takes all rows of all points, ``"sampled"`` some of them, ``"hutchinson"`` products with
            random vectors; ``"auto"`` whichever is the cheapest.
        max_matvecs: At most so many passes over all points.
        seed: Of the probe's own generators; the global random state is not used.
        chunk_size: Points differentiated together.
        roles: Parameter name to role; None asks `decaylab.params.roles`.

    Returns:
        The estimate with its standard error, by role and by tensor.

    Raises:
        DecaylabError: The method does not apply to this model and loss, or see `objective`.
    """
    started = time.perf_counter()
    if method not in _METHODS:
        raise unknown("method", method, _METHODS)
    made = objective(model, loss_fn, batches, chunk_size=chunk_size)
    with plain_kernels(made.device):
        kind = kind_of_loss(made)
        if kind == "none" and method in ("exact", "sampled"):
            raise DecaylabError(f"no rows are known for this loss of several positions a point: method={method!r}")
        if kind == "none" or method == "hutchinson":
            tally = hutchinson(made, "gauss_newton", rel_error, max_matvecs, seed)
            found = tally.estimate(made.names, role_names(model, roles), "hutchinson", rel_error, started)
            return replace(found, num_points=made.num_points, num_matvecs=len(tally.repetitions[0]))
        rows = OutputRows(GhostNorms(made), kind, seed)
        if method == "exact" and math.isinf(rows.exact_cost):
            raise DecaylabError("outputs with several positions a point have too many rows for method='exact'")
        if method == "sampled":
            rows.exact_cost = math.inf
        aim = 0.0 if method == "exact" else rel_error
        tally, flags = sum_to_accuracy([rows], aim, max_matvecs * made.num_points)
        name = "exact rows" if flags[0] else "sampled rows"
        found = tally.estimate(made.names, role_names(model, roles), name, rel_error, started)
        return replace(found, num_points=made.num_points, num_rows=rows.num_rows)


def role_names(model: nn.Module, roles: Mapping[str, str] | None) -> Mapping[str, str]:
    """Roles of the model's parameters; none where some parameter has no known role."""
    if roles is not None:
        return roles
    try:
        found: Mapping[str, str] = roles_of(unwrap(model), strict=False)
        return found
    except DecaylabError:
        return {}
