"""Tensors of a rule's state in a form that keeps all digits on the way through an optimizer's ``load_state_dict``.

torch casts the tensors of a parameter's state to the parameter's dtype when they are loaded. Norms of bfloat16 weights
are float32 and would lose two thirds of their digits, so they are saved as their bytes: whole numbers up to 255, which
every dtype holds.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from decaylab.tensors.sharding import is_sharded

_SIGN = ":"


def pack(name: str, value: Tensor, param: Tensor) -> tuple[str, Tensor]:
    """Return the name and the tensor to save: ``value`` itself, or its bytes where ``param`` has fewer."""
    narrow = value.is_floating_point() and value.dtype.itemsize > param.dtype.itemsize
    if not narrow or is_sharded(value):
        return name, value
    flat = value.detach().contiguous()
    return f"{name}{_SIGN}{str(value.dtype).removeprefix('torch.')}", _at_least_1d(flat).view(torch.uint8)


def unpack(name: str, value: Tensor, param: Tensor, known: Mapping[str, Tensor]) -> tuple[str, Tensor]:
    """Return what `pack` was given, on the parameter's device.

    Args:
        name: The saved name.
        value: The saved tensor, perhaps cast to another dtype.
        param: The parameter.
        known: What is kept for the parameter now: the shape of a single number, and its dtype.
    """
    name, _, dtype = name.partition(_SIGN)
    value = value.detach().clone()
    like = known.get(name)
    if dtype:
        value = value.to(torch.uint8).contiguous().view(getattr(torch, dtype))
    elif like is not None and not is_sharded(like) and not is_sharded(value) and like.is_floating_point():
        value = value.to(like.dtype)
    if like is not None and like.shape != value.shape and like.numel() == value.numel():
        value = value.reshape(like.shape)
    elif like is None and dtype and value.numel() == 1:
        value = value.reshape(())
    return name, value.to(device=param.device)


def _at_least_1d(value: Tensor) -> Tensor:
    return value.reshape(1) if value.dim() == 0 else value
