"""Reductions over lists of tensors: norms, extreme entries, scalars stacked without a device sync."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    pass


def tensor_norms(tensors: Sequence[Tensor], order: float = 2.0) -> Tensor:
    """Norm of every tensor, without a device sync.

    Args:
        tensors: Any shapes; half precision is accumulated in float32; sharded tensors give their global norm.
        order: 2 for the Euclidean (Frobenius) norm, ``inf`` for the largest absolute entry.

    Returns:
        Shape ``(len(tensors),)``, float64 (float32 where the device has no float64).
    """
    if not tensors:
        return torch.zeros(0, dtype=torch.float64)
    if not all(t.numel() for t in tensors):  # a shard that fell to other processes: no largest entry, and norm 0
        tensors = [t if t.numel() else t.new_zeros(1) for t in tensors]
    low = any(t.dtype in (torch.float16, torch.bfloat16) for t in tensors)
    found = torch._foreach_norm(list(tensors), order, dtype=torch.float32 if low else None)
    norms = [n.full_tensor() if hasattr(n, "full_tensor") else n for n in found]  # DTensor: a partial sum until here
    return stack_scalars(norms)


def entries(gradient: Tensor) -> Tensor:
    """Return a gradient's entries, detached: of a sparse one those that are there, repeated rows added up."""
    gradient = gradient.detach()
    if gradient.layout is not torch.sparse_coo:
        return gradient
    values = gradient.coalesce().values()
    return values if values.numel() else values.new_zeros(1)  # an empty tensor has no largest entry


def stack_scalars(scalars: Sequence[Tensor]) -> Tensor:
    """Stack 0-d tensors into a vector in the widest float type, on the device of the first; no device sync."""
    device = scalars[0].device
    if len({(x.device, x.dtype) for x in scalars}) > 1:
        scalars = [x.to(device=device, dtype=accurate(device)) for x in scalars]
    return torch.stack(list(scalars)).to(accurate(device))


def accurate(device: torch.device) -> torch.dtype:
    """The widest float type of the device: float64, or float32 on MPS."""
    return torch.float32 if device.type == "mps" else torch.float64
