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

from decaylab.errors import DecaylabError

if TYPE_CHECKING:
    from decaylab.probes.objective import Objective

_GROUP = 3  # points that are run together: as few as show a difference, since the data may be large images
_SPREAD = 9  # points taken evenly from the data, and values taken of each column
_WHOLE_NUMBERS = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
_TOLERANCE = 1e-3
_LARGEST_WORK = 2**24  # outputs of all groups together whose criterion is looked at
_NO_MEAN = (
    "the loss of a batch is not the mean of the losses of its points: loss_fn has to average over points, and no point"
    " may see the others (class weights and ignored targets break that)"
)


def unlike_points(leaves: Sequence[Tensor]) -> list[Tensor]:
    """Choose points that differ as much as points of the data can.

    Args:
        leaves: The columns of the data, first dimension points.

    Returns:
        Groups of up to three indices, on the host. Together they hold points from all over the data and, for each
        column of whole numbers (a class, say) or of one number a point (a weight), points with its least and largest
        values and some between; members of a group are far apart in the order of the last such column.
    """
    num_points = len(leaves[0])
    chosen = set(_evenly(num_points))
    order = torch.arange(num_points, dtype=torch.float64)
    for leaf in leaves:
        rows = leaf.reshape(num_points, -1)
        single = rows.shape[1] == 1 and not leaf.is_complex()
        if not single and (leaf.dtype not in _WHOLE_NUMBERS or not rows.shape[1]):
            continue
        columns = [rows[:, 0]] if single else [rows.amin(1), (rows == rows.min()).sum(1)]
        for column in columns:
            values, place = column.cpu().double().unique(return_inverse=True)
            first = torch.full((len(values),), num_points).scatter_reduce_(0, place, torch.arange(num_points), "amin")
            chosen |= {int(first[i]) for i in _evenly(len(values))}
            order = place.double() * num_points + torch.arange(num_points)
    points = torch.tensor(sorted(chosen, key=lambda n: float(order[n])))
    if len(points) < _GROUP:
        return [points]
    size = -(-len(points) // _GROUP)  # thirds of this size, that overlap where they must
    starts = (0, (len(points) - size) // 2, len(points) - size)
    return [points[[start + i for start in starts]] for i in range(size)]


def _evenly(count: int) -> list[int]:
    return sorted({round(x) for x in torch.linspace(0, count - 1, min(count, _SPREAD), dtype=torch.float64).tolist()})


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
