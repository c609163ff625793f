"""Arithmetic on large tensors in blocks that stay in a CPU's cache, with scratch memory that is kept between steps.

A temporary as large as a weight costs fresh pages from the system at every step and a trip through memory for every
operation. Small tensors, and all on other devices, go through foreach, whose number of calls does not grow with theirs.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from decaylab.tensors import multi_tensor
from decaylab.tensors.foreach import Tensors, piece_size, pieces, scale_, sums, wide, widened
from decaylab.tensors.sharding import complete_sums

_kept = threading.local()


def scratch(like: Tensor, slot: int = 0) -> Tensor:
    """Return memory of the shape, dtype and device of a block; its content lasts until the next call with the slot."""
    buffers: dict[tuple[torch.dtype, torch.device, int], Tensor] = _kept.__dict__.setdefault("buffers", {})
    key = (like.dtype, like.device, slot)
    found = buffers.get(key)
    if found is None or found.numel() < like.numel():
        found = buffers[key] = torch.empty(max(like.numel(), piece_size(like)), dtype=like.dtype, device=like.device)
    return found[: like.numel()].view(like.shape)


def subtract(left: Tensors, right: Tensors, slot: int = 0) -> Tensors:
    """Return ``left - right`` of each pair of a piece (see `pieces`), in scratch memory where it is one block."""
    if len(left) == 1 and left[0].device.type == "cpu":
        return [torch.sub(left[0], right[0], out=scratch(left[0], slot))]
    return list(torch._foreach_sub(left, right))


def add_scaled(out: Tensors, base: Tensors, direction: Tensors, origin: Tensors | None, factor: float) -> None:
    """Set ``out`` to ``base + factor (direction - origin)``, a tensor at a time; without an origin it is zero.

    The bits are those of ``torch.add(base, direction - origin, alpha=factor)``. ``out`` shares no memory with the rest.
    """
    if multi_tensor.usable(out, base, direction, *([] if origin is None else [origin])):
        multi_tensor.add_scaled(out, base, direction, origin, factor)
        return
    for piece in pieces(out, base, direction, *([] if origin is None else [origin])):
        target, start, along = piece[:3]
        if len(target) == 1:
            if origin is not None:
                along = [torch.sub(along[0], piece[3][0], out=target[0])]
            torch.add(start[0], along[0], alpha=factor, out=target[0])
        else:
            along = along if origin is None else list(torch._foreach_sub(along, piece[3]))
            torch._foreach_copy_(target, torch._foreach_add(start, along, alpha=factor))


def pull_towards_(weights: Tensors, origin: Tensors, shares: Tensor) -> None:
    """Take the share ``shares[i]`` of its distance from the origin from tensor ``i``, in place.

    Args:
        weights: The tensors.
        origin: Of the same shapes.
        shares: A number a tensor. On the CPU, tensors whose share is 0 are not touched.
    """
    if multi_tensor.usable(weights, origin):
        multi_tensor.pull_towards_(weights, origin, shares)
        return
    if weights[0].device.type != "cpu" or weights[0].dtype not in (torch.float32, torch.float64):
        away = torch._foreach_sub(weights, origin)
        scale_(away, -shares)
        torch._foreach_add_(weights, away)
        return
    for weight, centre, share in zip(weights, origin, shares.tolist(), strict=True):
        if share:
            for now, then in pieces([weight], [centre]):
                now[0].sub_(subtract(now, then)[0], alpha=share)


def offset_products(
    params: list[Tensor], weights: Tensors, origin: Tensors, grads: Tensors | None = None
) -> tuple[Tensor, Tensor]:
    """Return ``<g, w - o>`` and ``||w - o||^2`` of every tensor as vectors, over all shards.

    Args:
        params: The parameters; they tell how the tensors are sharded. All on one device, of one dtype.
        weights: Their local tensors, w.
        origin: o, of the same shapes.
        grads: g, of the same shapes; without them the first vector is zero.
    """
    if multi_tensor.usable(weights, origin, *([] if grads is None else [grads])):
        squares, inner = multi_tensor.sums(weights, origin, grads)
        return complete_sums(params, inner), complete_sums(params, squares)
    size, dtype = piece_size(weights[0]), wide(weights[0].dtype)
    found = torch.zeros(2, len(weights), dtype=dtype, device=weights[0].device)
    tensors = [weights, origin] if grads is None else [weights, origin, grads]
    large = [i for i, group in enumerate(zip(*tensors, strict=True)) if _in_blocks(group, size)]
    for i in large:
        flat = [list(group[i].view(-1).split(size)) for group in tensors]
        for block in zip(*flat, strict=True):
            away = torch.sub(block[0], block[1], out=scratch(block[0]))
            found[1, i] += torch.dot(away, away)
            if grads is not None:
                found[0, i] += torch.dot(away, block[2])
    chosen = set(large)
    small = [i for i in range(len(weights)) if i not in chosen]
    if small:
        offsets = torch._foreach_sub([weights[i] for i in small], [origin[i] for i in small])
        squares = torch.stack(torch._foreach_norm(offsets, 2, dtype=dtype)).square_()
        inner = torch.zeros_like(squares)
        if grads is not None:
            inner = sums(torch._foreach_mul(widened([grads[i] for i in small]), widened(offsets)))
        if not large:
            return complete_sums(params, inner), complete_sums(params, squares)
        found[:, small] = torch.stack([inner, squares])
    return complete_sums(params, found[0]), complete_sums(params, found[1])


def _in_blocks(group: tuple[Tensor, ...], size: int) -> bool:
    """Whether tensors of one shape are worked on in flat blocks."""
    first = group[0]
    plain = first.device.type == "cpu" and first.dtype in (torch.float32, torch.float64)
    return plain and first.numel() > size and all(t.is_contiguous() and t.dtype == first.dtype for t in group)
