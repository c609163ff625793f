"""What are the norms of many tensors at once, and how are many tensors rescaled at once?

Everything is foreach: a fixed number of calls whatever the number of tensors. Norms of low-precision weights are taken
and applied in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from decaylab.tensors import multi_tensor
from decaylab.tensors.sharding import complete_sums, local

_PIECE_CPU, _PIECE_GPU = 1 << 17, 1 << 26  # a thread's share on a CPU, all of a GPU
_LARGE = 1 << 16
Tensors = list[Tensor] | tuple[Tensor, ...]


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype for sums over tensors of ``dtype``: float64 for itself, float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def exact(values: Tensor) -> Tensor:
    """Return numbers in the widest dtype that their device has."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def by_kind(params: list[Tensor]) -> list[list[Tensor]]:
    """Split parameters into lists of one device and dtype, which foreach needs."""
    if len({(p.device, p.dtype) for p in params}) == 1:  # nearly always, and asked at every step
        return [params]
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for p in params:
        kinds.setdefault((p.device, p.dtype), []).append(p)
    return list(kinds.values())


def squared_norms(params: list[Tensor], weights: Tensors | None = None) -> Tensor:
    """Return ``||p||^2`` of every tensor as a vector, over all shards of it.

    Args:
        params: The parameters; they tell how the tensors are sharded. All on one device, of one dtype.
        weights: Local tensors to measure instead of the parameters' own, in the same order.
    """
    pieces = [local(p) for p in params] if weights is None else weights
    if multi_tensor.usable(pieces):
        return complete_sums(params, multi_tensor.sums(pieces)[0])
    each = torch._foreach_norm(pieces, 2, dtype=wide(pieces[0].dtype))
    return complete_sums(params, torch.stack(each).square_())


def norms(params: list[Tensor], weights: Tensors | None = None) -> Tensor:
    """Return the Frobenius norm of every tensor as a vector; see `squared_norms`."""
    return squared_norms(params, weights).sqrt_()


def dots(params: list[Tensor], left: Tensors, right: Tensors) -> Tensor:
    """Return the inner product of every pair of local tensors as a vector, over all shards."""
    return complete_sums(params, sums(torch._foreach_mul(widened(left), widened(right))))


def sums(tensors: Tensors, positive: bool = False) -> Tensor:
    """Return the sum of every local tensor as a vector.

    Args:
        tensors: The tensors, of one device and dtype. Overwritten unless ``positive``.
        positive: No tensor has a negative entry.
    """
    dtype = wide(tensors[0].dtype)
    if multi_tensor.usable(tensors):
        return multi_tensor.sums(tensors, square=False)[0]
    if tensors[0].device.type == "cpu" and max(tensor.numel() for tensor in tensors) > _LARGE:
        # For large tensors on CPU a loop of sums is four times as fast as the foreach norm, and calls cost nothing.
        return torch.stack([tensor.sum(dtype=dtype) for tensor in tensors])
    sizes = torch.stack(torch._foreach_norm(tensors, 1, dtype=dtype))
    if positive:
        return sizes
    # There is no foreach sum, but one of sizes: the sum is twice that of the positive entries less that of all sizes.
    torch._foreach_clamp_min_(tensors, 0.0)
    return 2 * torch.stack(torch._foreach_norm(tensors, 1, dtype=dtype)) - sizes


def safe_ratio(target: Tensor | float, norm: Tensor) -> Tensor:
    """Return ``target / norm``, and 1 where the norm is zero: a zero weight has no direction to keep."""
    positive = norm > 0
    return torch.where(positive, target / torch.where(positive, norm, 1.0), 1.0)


def widened(weights: Tensors) -> Tensors:
    """Return float32 copies of low-precision tensors, and tensors of other dtypes as they are."""
    dtype = wide(weights[0].dtype)
    return weights if weights[0].dtype == dtype else [weight.to(dtype) for weight in weights]


def scale_(weights: Tensors, factors: Tensor) -> None:
    """Multiply tensor ``i`` by ``factors[i]``, in place.

    float32 and float64 in one pass. bfloat16 and float16 by way of a float32 copy: as a tensor of their own dtype the
    factor would be rounded to eight bits and small corrections would be lost.
    """
    if multi_tensor.usable(weights):
        multi_tensor.scale_(weights, factors)
        return
    copies = widened(weights)
    torch._foreach_mul_(copies, list(factors.to(copies[0].dtype).unbind()))
    if copies is not weights:
        torch._foreach_copy_(weights, copies)


def piece_size(tensor: Tensor) -> int:
    """Return the number of weights of a piece: a cache's content for each thread of a CPU; a GPU's bounds memory."""
    return _PIECE_CPU * torch.get_num_threads() if tensor.device.type == "cpu" else _PIECE_GPU


def pieces(*lists: Tensors) -> Iterator[tuple[list[Tensor], ...]]:
    """Cut lists of tensors along dimension 0 into batches of a bounded number of weights.

    For work with temporary tensors: on CPU those of a batch stay in the cache, and on a GPU, where batches are large,
    memory stays bounded.

    Args:
        *lists: Lists of tensors; the tensors at one position have the same length. The first list counts for the size.

    Yields:
        For each batch, a list of views for every list, in the same order.
    """
    size = piece_size(lists[0][0])
    batch: list[tuple[Tensor, ...]] = []
    held = 0
    for tensors in zip(*lists, strict=True):
        first = tensors[0]
        cuts: Iterable[tuple[Tensor, ...]] = [tensors]
        if first.numel() > size and first.dim() > 0:
            rows = max(1, size * first.shape[0] // first.numel())
            cuts = zip(*(tensor.split(rows) for tensor in tensors), strict=True)
        for cut in cuts:
            if batch and held + cut[0].numel() > size:
                yield tuple(list(column) for column in zip(*batch, strict=True))
                batch, held = [], 0
            batch.append(cut)
            held += cut[0].numel()
    if batch:
        yield tuple(list(column) for column in zip(*batch, strict=True))


def multiply_(weights: Tensors, factor: float | Tensor) -> None:
    """Multiply all tensors by one number, in place; a low-precision weight is rounded once, the factor never."""
    if isinstance(factor, Tensor):
        scale_(weights, factor.to(weights[0].device).expand(len(weights)))
    elif weights[0].dtype in (torch.float32, torch.float64) or weights[0].device.type != "cpu":
        torch._foreach_mul_(weights, factor)
    else:
        # On CPU foreach first rounds the factor to the weights' dtype, so that 0.99 becomes 0.98828 in bfloat16;
        # the single-tensor kernel does not.
        for weight in weights:
            weight.mul_(factor)
