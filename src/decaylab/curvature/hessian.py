r"""How curved is the loss: the trace of its Hessian, with a standard error, as fast as the network allows?"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from decaylab.curvature.estimate import Estimate
from decaylab.curvature.gauss_newton import role_names
from decaylab.curvature.graph_analysis import structure
from decaylab.curvature.hutchinson import hutchinson
from decaylab.curvature.importance_sampling import OutputRows, Source, sum_to_accuracy
from decaylab.curvature.model_copy import plain_kernels
from decaylab.curvature.objective import Objective
from decaylab.curvature.output_factors import kind_of_loss
from decaylab.curvature.per_sample_norms import GhostNorms
from decaylab.curvature.prepare import objective
from decaylab.curvature.residual import SmoothUnits
from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError, unknown

HessianMethod = Literal["auto", "exact", "split", "hutchinson"]
_METHODS = ("auto", "exact", "split", "hutchinson")


def hessian_trace(
    model: nn.Module,
    loss_fn: LossFunction | nn.Module,
    batches: Iterable[Any],
    rel_error: float = 0.02,
    *,
    method: HessianMethod = "auto",
    max_matvecs: int = 1000,
    seed: int = 0,
    chunk_size: int | None = None,
    roles: Mapping[str, str] | None = None,
) -> Estimate:
    r"""Estimate :math:`\mathrm{Tr}\, \nabla^2 L` over the trainable parameters, in loss per squared weight.

    With H = G + E, the Gauss-Newton part and the rest:

    - Networks that are piecewise linear in each parameter tensor (ReLU, BatchNorm in eval mode, untied weights): the
      diagonal of E is zero and Tr H = Tr G, a closed form over rows of outputs; all rows or a weighted sample of them.
    - Networks that bend at elementwise activations only (GELU, SiLU, tanh ...): Tr G as above, and Tr E from random
      signs injected at the activations (`decaylab.curvature.residual`).
    - All others (softmax attention, LayerNorm, tied weights): Hutchinson's method.

    Which one holds is read off the graph of the network on the data, see `decaylab.curvature.graph_analysis`.

    Args:
        model: The model, left alone; measured in eval mode and at least float32, on its device.
        loss_fn: Mean loss, see `decaylab.curvature.prepare.objective`.
        batches: The points, see there.
        rel_error: Standard error at which to stop, relative to the trace; 0 for the exact value where there is one.
        method: ``"auto"`` is described above. ``"exact"`` refuses to estimate, ``"split"`` refuses Hutchinson's method,
            ``"hutchinson"`` always uses it.
        max_matvecs: At most so many passes over all points; then the estimate says ``converged=False``.
        seed: Of the probe's own generators; the global random state is not used.
        chunk_size: Points differentiated together: bounds the memory, does not change the expected value.
        roles: Parameter name to role; None asks `decaylab.params.roles`.

    Returns:
        The estimate with its standard error, by role and by tensor from the same pass.

    Raises:
        DecaylabError: The method does not apply to this model and loss (with the reason), or see `objective`.

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
        >>> found = hessian_trace(net, torch.nn.MSELoss(), [(x, torch.zeros(2, 1))])
        >>> round(found.value, 4), found.method  # 2 * mean |x|^2
        (14.0, 'exact rows')
    """
    started = time.perf_counter()
    if method not in _METHODS:
        raise unknown("method", method, _METHODS)
    made = objective(model, loss_fn, batches, chunk_size=chunk_size)
    with plain_kernels(made.device):
        split = None if method == "hutchinson" else _split(made, method, seed)
        if split is None:
            tally = hutchinson(made, "hessian", rel_error, max_matvecs, seed)
            found = tally.estimate(made.names, role_names(model, roles), "hutchinson", rel_error, started)
            return replace(found, num_points=made.num_points, num_matvecs=len(tally.repetitions[0]))
        aim = 0.0 if method == "exact" else rel_error
        tally, exact = sum_to_accuracy(split, aim, max_matvecs * made.num_points)
        name = "exact rows" if exact[0] else "sampled rows"
        name += " + sampled residual" if len(split) > 1 else ""
        found = tally.estimate(made.names, role_names(model, roles), name, rel_error, started)
        return replace(found, num_points=made.num_points, num_rows=sum(source.num_rows for source in split))


def _split(made: Objective, method: HessianMethod, seed: int) -> list[Source] | None:
    """The sums that the trace consists of, or None where only products with the Hessian will do."""
    try:
        kind, form = kind_of_loss(made), structure(made)
    except DecaylabError:  # outputs that cannot be told from the loss
        if method != "auto":
            raise
        return None
    problem = f"the network has {form.reason}" if form.kind == "general" else ""
    if kind == "none":
        problem = problem or "no rows are known for this loss of several positions a point"
    if not problem:
        ghost = GhostNorms(made)
        sources: list[Source] = [OutputRows(ghost, kind, seed)]
        if form.kind == "smooth units":
            if ghost.uncovered:
                problem = f"no layer kernel covers {ghost.uncovered[0]}"
            if method == "exact":
                problem = "smooth activations have a residual part that can only be estimated"
            sources.append(SmoothUnits(ghost, seed + 1))
        elif method == "exact" and math.isinf(sources[0].exact_cost):
            problem = "outputs with several positions a point have too many rows"
        if not problem:
            return sources
    if method != "auto":
        raise DecaylabError(f"method={method!r} does not apply: {problem}; use method='auto'")
    return None
