"""Which numbers belong to a whole tensor when this rank holds only a piece of it?

Elementwise work is done on the local pieces. Sums over a tensor are completed by one all-reduce over the ranks that
share it; replicated pieces are not counted twice.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from decaylab.errors import DecaylabError


def is_sharded(tensor: Tensor) -> bool:
    """Whether ``tensor`` is a ``DTensor`` (FSDP2, tensor parallel)."""
    # A DTensor can only exist once its module has been imported, and importing it costs half a second.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """Return this rank's piece of ``tensor``; the tensor itself when it is not sharded."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def like(tensor: Tensor, piece: Tensor) -> Tensor:
    """Wrap a local ``piece`` the way ``tensor`` is wrapped."""
    if not is_sharded(tensor):
        return piece
    from torch.distributed.tensor import DTensor

    sharded: Any = tensor
    return DTensor.from_local(
        piece, sharded.device_mesh, sharded.placements, run_check=False, shape=sharded.shape, stride=sharded.stride()
    )


def complete_sums(params: list[Tensor], sums: Tensor) -> Tensor:
    """Add up sums of local pieces over the ranks that hold the other pieces.

    Args:
        params: The parameters, one for each row of ``sums``.
        sums: ``(len(params), ...)`` sums over each local piece.

    Returns:
        The same shape, sums over whole tensors. One all-reduce for each mesh dimension that shards, not one a tensor.
    """
    if not any(is_sharded(p) for p in params):
        return sums
    import torch.distributed as dist

    groups: dict[tuple[Any, int], list[int]] = {}
    for i, p in enumerate(params):
        if is_sharded(p):
            sharded: Any = p
            for dim, placement in enumerate(sharded.placements):
                if placement.is_partial():
                    raise DecaylabError(
                        "a parameter with partial placement cannot have its norm taken; redistribute it"
                    )
                if placement.is_shard():
                    groups.setdefault((sharded.device_mesh, dim), []).append(i)
    total = sums.clone()
    for (mesh, dim), rows in groups.items():
        index = torch.tensor(rows, device=total.device)
        piece = total.index_select(0, index)
        dist.all_reduce(piece, group=mesh.get_group(dim))
        total.index_copy_(0, index, piece)
    return total


def refuse_split_rows(params: list[Tensor]) -> None:
    """Raise where a row (an index of dimension 0) does not lie whole on one rank.

    Raises:
        DecaylabError: A parameter is sharded along another dimension than the first.
    """
    for p in params:
        if is_sharded(p):
            sharded: Any = p
            if any(placement.is_shard() and placement.dim != 0 for placement in sharded.placements):
                raise DecaylabError(
                    "this rule needs whole rows on a rank, and a parameter is sharded along another dimension: "
                    "shard along dimension 0, or use the rule's per-tensor form"
                )


def refuse_flat(params: list[Tensor]) -> None:
    """Raise for FSDP1's flattened parameters, which hold pieces of several tensors or a piece without its shape.

    Raises:
        DecaylabError: A parameter is a ``FlatParameter`` or a view into one.
    """
    for p in params:
        if hasattr(p, "_fsdp_flattened") or hasattr(p, "_is_flat_param") or type(p).__name__ == "FlatParameter":
            raise DecaylabError(
                "norm-based rules do not work on FSDP's flattened parameters: use fully_shard (FSDP2), whose "
                "parameters keep their shape"
            )
