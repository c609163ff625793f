r"""How sensitive are the outputs to the parameters: the Frobenius norm of the Jacobian?

.. math:: \|J\|_F = \Bigl(\frac1N \sum_n \sum_c \|\nabla_\theta z_{nc}\|^2\Bigr)^{1/2},

the root mean square over points, so that it does not depend on how many were taken. The paper's appendix A.2 sums
over points instead: multiply by :math:`\sqrt N`. For the squared loss it is, up to a constant, the root of the
Gauss-Newton trace.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from decaylab.curvature.estimate import Estimate, Part
from decaylab.curvature.gauss_newton import role_names
from decaylab.curvature.importance_sampling import OutputRows, sum_to_accuracy
from decaylab.curvature.model_copy import plain_kernels
from decaylab.curvature.per_sample_norms import GhostNorms
from decaylab.curvature.prepare import objective
from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError, unknown

JacobianMethod = Literal["auto", "exact", "projections"]
_METHODS = ("auto", "exact", "projections")


def jacobian_frobenius(
    model: nn.Module,
    batches: Iterable[Any],
    rel_error: float = 0.02,
    *,
    loss_fn: LossFunction | None = None,
    method: JacobianMethod = "auto",
    max_projections: int = 1000,
    seed: int = 0,
    chunk_size: int | None = None,
    roles: Mapping[str, str] | None = None,
) -> Estimate:
    r"""Measure the Frobenius norm of the Jacobian of the outputs with respect to the trainable parameters.

    Args:
        model: The model, left alone; measured in eval mode and at least float32.
        batches: The points: inputs, or tuples that begin with them. All tensors have one entry a point.
        rel_error: Standard error at which to stop, relative to the norm; 0 for the exact value.
        loss_fn: Only needed where the model takes more than the first entry of a batch: then the outputs are what the
            model returns inside ``loss_fn(model, batch)``.
        method: ``"exact"`` goes class by class through all points; ``"projections"`` takes random signs over the
            outputs, :math:`E \|J^\top \epsilon\|^2 = \|J\|_F^2`, also for outputs with many positions; ``"auto"``
            samples pairs of point and class, or takes all where that is cheaper.
        max_projections: At most so many rows a point.
        seed: Of the probe's own generators.
        chunk_size: Points differentiated together.
        roles: Parameter name to role; None asks `decaylab.params.roles`.

    Returns:
        The norm with its standard error. Shares by role and tensor are norms too: their squares add up.

    Raises:
        DecaylabError: ``"exact"`` for outputs with several positions a point, or see
            `decaylab.curvature.prepare.objective`.

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(3, 2, bias=False)
        >>> found = jacobian_frobenius(net, [torch.ones(4, 3)], rel_error=0)
        >>> round(found.value**2, 4)  # two outputs, three inputs of one
        6.0
    """
    started = time.perf_counter()
    if method not in _METHODS:
        raise unknown("method", method, _METHODS)
    made = objective(model, loss_fn, batches, chunk_size=chunk_size)
    with plain_kernels(made.device):
        rows = OutputRows(GhostNorms(made), "identity", seed, random=method == "projections")
        if method == "exact" and math.isinf(rows.exact_cost):
            raise DecaylabError("outputs with several positions a point have too many rows for method='exact'")
        aim = 0.0 if method == "exact" else 2 * rel_error  # of the square
        tally, flags = sum_to_accuracy([rows], aim, max_projections * made.num_points)
        name = "exact rows" if flags[0] else "random projections" if method == "projections" else "sampled rows"
        found = tally.estimate(made.names, role_names(model, roles), name, aim, started)
    norm = _root(Part(found.value, found.stderr))
    return replace(
        found,
        value=norm.value,
        stderr=norm.stderr,
        per_tensor={key: _root(part) for key, part in found.per_tensor.items()},
        per_role={key: _root(part) for key, part in found.per_role.items()},
        num_points=made.num_points,
        num_rows=rows.num_rows,
    )


def _root(square: Part) -> Part:
    """Square root; the standard error follows to first order."""
    value = math.sqrt(max(square.value, 0.0))
    return Part(value, square.stderr / (2 * value) if value else square.stderr)
