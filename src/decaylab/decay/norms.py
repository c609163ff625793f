"""What are the norms of many tensors at once, and how are many tensors rescaled at once?

Everything is foreach: a fixed number of calls whatever the number of tensors. Norms of low-precision weights are taken
and applied in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from decaylab.decay.sharding import complete_sums, local


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype for sums over tensors of ``dtype``: float64 for itself, float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def squared_norms(params: list[Tensor], weights: list[Tensor] | None = None) -> Tensor:
    """Return ``||p||^2`` of every tensor as a vector, over all shards of it.

    Args:
        params: The parameters; they tell how the tensors are sharded. All on one device, of one dtype.
        weights: Local tensors to measure instead of the parameters' own, in the same order.
    """
    pieces = [local(p) for p in params] if weights is None else weights
    norms = torch._foreach_norm(pieces, 2, dtype=wide(pieces[0].dtype))
    return complete_sums(params, torch.stack(norms).square_())


def norms(params: list[Tensor], weights: list[Tensor] | None = None) -> Tensor:
    """Return the Frobenius norm of every tensor as a vector; see `squared_norms`."""
    return squared_norms(params, weights).sqrt_()


def dots(params: list[Tensor], left: list[Tensor], right: list[Tensor]) -> Tensor:
    """Return the inner product of every pair of local tensors as a vector, over all shards."""
    dtype = wide(left[0].dtype)
    products = torch._foreach_mul(left, right)
    return complete_sums(params, torch.stack([product.sum(dtype=dtype) for product in products]))


def scale_(weights: list[Tensor], factors: Tensor) -> None:
    """Multiply tensor ``i`` by ``factors[i]``, in place.

    float32 and float64 in one pass. bfloat16 and float16 by way of a float32 copy: as a tensor of their own dtype the
    factor would be rounded to eight bits and small corrections would be lost.
    """
    if weights[0].dtype in (torch.float32, torch.float64):
        torch._foreach_mul_(weights, list(factors.to(weights[0].dtype).unbind()))
        return
    copies = [weight.to(factors.dtype) for weight in weights]
    torch._foreach_mul_(copies, list(factors.unbind()))
    torch._foreach_copy_(weights, copies)


def multiply_(weights: list[Tensor], factor: float | Tensor) -> None:
    """Multiply all tensors by one number, in place; a low-precision weight is rounded once, the factor never."""
    if isinstance(factor, Tensor):
        scale_(weights, factor.to(weights[0].device, wide(weights[0].dtype)).expand(len(weights)))
    elif weights[0].dtype in (torch.float32, torch.float64) or weights[0].device.type != "cpu":
        torch._foreach_mul_(weights, factor)
    else:
        # On CPU foreach first rounds the factor to the weights' dtype, so that 0.99 becomes 0.98828 in bfloat16;
        # the single-tensor kernel does not.
        for weight in weights:
            weight.mul_(factor)
