"""Is the loss of a batch the mean of the losses of its points, whichever points those are?

Every curvature probe cuts the points into chunks and adds up. Class weights, ignored targets, weights of examples and
sums all break that, and show only where the points of a batch differ in class, or where the loss is not nearly zero. So
points are taken from all over the data, and the criterion is also looked at where the outputs are wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from decaylab.curvature.sample_points import unlike_points
from decaylab.errors import DecaylabError

if TYPE_CHECKING:
    from decaylab.curvature.objective import Objective

_TOLERANCE = 1e-3
_LARGEST_WORK = 2**24  # outputs of all groups together whose criterion is looked at
_NO_MEAN = (
    "the loss of a batch is not the mean of the losses of its points: loss_fn has to average over points, and no point"
    " may see the others (class weights and ignored targets break that)"
)


def check_mean(made: Objective) -> int:
    """Check that the loss is a mean over independent points.

    The network is run on three points together and one by one. The criterion is compared on more points, by its
    gradient at given outputs: that tells class weights also where all losses are alike, and a sum also where they are
    nearly 0.

    Args:
        made: What is to be differentiated.

    Returns:
        The bytes that a point keeps for its backward pass.

    Raises:
        DecaylabError: The loss is no scalar, or not the mean of the losses of its points.
    """
    groups = unlike_points(made.leaves)
    own = {p.data_ptr() for p in made.parameters}
    saved = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += 0 if tensor.data_ptr() in own else tensor.numel() * tensor.element_size()
        return tensor

    seen: list[Any] = []
    hook = made.model.register_forward_hook(lambda module, args, outputs: seen.append(outputs))
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            together = _value(made, groups[0])
    finally:
        hook.remove()
    _compare_network(made, groups[0], together)
    if made.has_loss:
        if len(seen) == 1 and isinstance(seen[0], Tensor) and seen[0].ndim and len(seen[0]) == len(groups[0]):
            _compare_criterion(made, groups, seen[0].detach())
        else:  # the criterion cannot be told from the network
            for group in groups[1:]:
                with torch.no_grad():
                    together = _value(made, group)
                _compare_network(made, group, together)
    return saved // len(groups[0])


def _value(made: Objective, index: Tensor) -> Tensor:
    if not made.has_loss:
        return made.outputs(made.take(index))
    loss = made.loss(made.take(index))
    if loss.ndim:
        raise DecaylabError(f"loss_fn has to return a scalar, the mean over a batch, not shape {tuple(loss.shape)}")
    return loss


@torch.no_grad()
def _compare_network(made: Objective, group: Tensor, together: Tensor) -> None:
    alone = [_value(made, index) for index in group.split(1)]
    found = torch.stack(alone).mean() if made.has_loss else torch.cat(alone)
    # Losses near 0 are differences of outputs, and these are rounded otherwise in another batch.
    _refuse_unlike(together.detach(), found, slack=1e-5)


def _compare_criterion(made: Objective, groups: Sequence[Tensor], outputs: Tensor) -> None:
    outputs = outputs.roll(1, 0)  # where most are wrong
    some = max(1, min(len(groups), _LARGEST_WORK // outputs.numel()))
    for group in groups[:: -(-len(groups) // some)]:
        together = _slope(made, outputs, group)
        if together is None:
            return
        singles = zip(outputs.split(1), group.split(1), strict=True)
        alone = [_slope(made, z, index) for z, index in singles]
        if any(slope is None for slope in alone):
            raise DecaylabError(_NO_MEAN)
        _refuse_unlike(together, torch.cat([s for s in alone if s is not None]) / len(group), slack=0.0)


def _slope(made: Objective, outputs: Tensor, index: Tensor) -> Tensor | None:
    leaf = outputs.detach().requires_grad_()
    with torch.enable_grad():
        loss = made.loss_at(leaf.clone(), made.take(index))  # a copy, that the loss may overwrite
        slope = torch.autograd.grad(loss, leaf, allow_unused=True)[0] if loss.requires_grad else None
    return slope


def _refuse_unlike(together: Tensor, alone: Tensor, slack: float) -> None:
    scale = float(together.abs().max())
    # a network that has diverged is not the loss's fault, but a point alone that has no loss is
    if math.isfinite(scale) and not float((together - alone).abs().max()) <= _TOLERANCE * scale + slack:
        raise DecaylabError(_NO_MEAN)
