"""Sample points that differ from each other as much as the data allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    pass

_GROUP = 3  # points that are run together: as few as show a difference, since the data may be large images


_SPREAD = 9  # points taken evenly from the data, and values taken of each column


_WHOLE_NUMBERS = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


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
