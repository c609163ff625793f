"""One launch of a kernel for all tensors of a list, on a GPU with Triton.

foreach passes over memory once an operation, and for one number a tensor it launches a kernel a tensor. These pass over
it once in all. They need float32 tensors that lie in memory without gaps, and enough of them to be worth the second
that Triton takes to compile a kernel on its first use (it keeps it on disk); `usable` says whether. Set
``DECAYLAB_TRITON=0`` in the environment to do without.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

_BLOCK, _LONGEST_ROW = 4096, 16_384
_WORTH_IT = 1 << 20
_MOST_TABLES = 64
_tables: OrderedDict[tuple[Any, ...], Tensor] = OrderedDict()
_captured: list[Tensor] = []


def usable(*lists: Sequence[Tensor]) -> bool:
    """Whether kernels can work on these lists: tensors at one position have the same shape."""
    first = lists[0][0]
    if not _on_gpu(first) or sum(t.numel() for t in lists[0]) < _WORTH_IT:
        return False
    if any(t.dtype != torch.float32 or not t.is_contiguous() for tensors in lists for t in tensors):
        return False
    if torch.cuda.is_current_stream_capturing() and not _known(lists):
        return False  # a table cannot be brought to the device then
    return _works(first.device)


def _on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda


@cache
def _works(device: torch.device) -> bool:
    """Whether Triton is there and its kernels run: it needs a C compiler too."""
    if os.environ.get("DECAYLAB_TRITON") == "0" or importlib.util.find_spec("triton") is None:
        return False
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            probe = torch.arange(4.0, device=device)
            scale_([probe], torch.full((1,), 2.0, device=device))
            return probe.tolist() == [0.0, 2.0, 4.0, 6.0]
    except Exception:
        return False


def _kernels() -> Any:
    from decaylab.tensors import triton_kernels

    return triton_kernels


def _known(lists: Sequence[Sequence[Tensor]]) -> bool:
    return all(_key("address", tensors) in _tables for tensors in lists)


def _key(kind: str, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    if kind == "address":
        return (kind, tensors[0].device, *[t.data_ptr() for t in tensors])
    return (kind, tensors[0].device, *[t.shape for t in tensors])


def _table(kind: str, tensors: Sequence[Tensor], *more: int) -> Tensor:
    """Return what a kernel has to know of a list of tensors, on their device; kept, as lists come again every step."""
    key = (*_key(kind, tensors), *more)
    found = _tables.get(key)
    if found is None:
        made = _made(kind, tensors, *more)
        if tensors[0].is_cuda:  # from pinned memory, so that nobody waits for what the device is doing
            made = made.pin_memory().to(tensors[0].device, non_blocking=True)
        found = _tables[key] = made
        while len(_tables) > _MOST_TABLES:
            _tables.popitem(last=False)
    else:
        _tables.move_to_end(key)
    if tensors[0].is_cuda and torch.cuda.is_current_stream_capturing():
        _captured.append(found)  # replays of the graph read it for as long as there is the graph
    return found


def _made(kind: str, tensors: Sequence[Tensor], *more: int) -> Tensor:
    if kind == "address":
        return torch.tensor([t.data_ptr() for t in tensors], dtype=torch.int64)
    if kind == "size":
        return torch.tensor([t.numel() for t in tensors], dtype=torch.int64)
    if kind == "row length":
        return torch.tensor([_row_length(t) for t in tensors], dtype=torch.int64)
    if kind == "block":
        counts = torch.tensor([-(-t.numel() // _BLOCK) for t in tensors])
    else:  # rows of the tensors whose rows fit into blocks of one length
        counts = torch.tensor([t.shape[0] if _padded(_row_length(t)) == more[0] else 0 for t in tensors])
    which = torch.repeat_interleave(torch.arange(len(tensors)), counts)
    first = (counts.cumsum(0) - counts)[which]
    return torch.stack([which, torch.arange(len(which)) - first], dim=1).to(torch.int32).contiguous()


def _row_length(tensor: Tensor) -> int:
    return tensor.numel() // tensor.shape[0]


def _padded(length: int) -> int:
    return 1 << max(length - 1, 0).bit_length()


def _launch(
    kernel: Any, shapes: Sequence[Tensor], *arguments: Any, lists: Sequence[Sequence[Tensor]], **options: Any
) -> None:
    addresses = [_table("address", tensors) for tensors in lists]
    sizes, blocks = _table("size", shapes), _table("block", shapes)
    options["ALIGNED"] = _aligned(lists) and all(t.numel() % 16 == 0 for t in shapes)
    kernel[(len(blocks),)](*addresses, sizes, blocks, *arguments, BLOCK=_BLOCK, **options)


def _aligned(lists: Sequence[Sequence[Tensor]]) -> bool:
    return all(t.data_ptr() % 16 == 0 for tensors in lists for t in tensors)


def _vector(values: Tensor) -> Tensor:
    return values.to(torch.float32).contiguous()


def scale_(weights: Sequence[Tensor], factors: Tensor) -> None:
    """Multiply tensor ``i`` by ``factors[i]``."""
    _launch(_kernels().scale, weights, _vector(factors), lists=[weights])


def sums(
    weights: Sequence[Tensor],
    origin: Sequence[Tensor] | None = None,
    others: Sequence[Tensor] | None = None,
    *,
    square: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return ``sum (w - o)^2``, or ``sum (w - o)``, and ``sum g (w - o)`` of every tensor as float32 vectors.

    Args:
        weights: w.
        origin: o; zero by default.
        others: g; without them the second vector is zero.
        square: Whether the first sum is one of squares.
    """
    width = -(-max(t.numel() for t in weights) // _BLOCK)
    found = torch.zeros(2, len(weights), width, dtype=torch.float32, device=weights[0].device)
    lists = [weights, weights if origin is None else origin, weights if others is None else others]
    flags = {"ORIGIN": origin is not None, "OTHER": others is not None, "SQUARE": square}
    _launch(_kernels().sums, weights, found, width, len(weights) * width, lists=lists, **flags)
    first, second = found.sum(dim=2, dtype=torch.float64).to(torch.float32)
    return first, second


def cautious_(weights: Sequence[Tensor], olds: Sequence[Tensor], coefficient: float | Tensor) -> None:
    """Take ``c o`` from the weights whose update did not point away from zero."""
    tensor = isinstance(coefficient, Tensor)
    held = _vector(coefficient.to(weights[0].device)) if isinstance(coefficient, Tensor) else weights[0]
    number = 0.0 if isinstance(coefficient, Tensor) else float(coefficient)
    _launch(_kernels().cautious, weights, held, number, lists=[weights, olds], TENSOR=tensor)


def combine_(weights: Sequence[Tensor], olds: Sequence[Tensor], pulls: Tensor, factors: Tensor) -> None:
    """Set tensor ``i`` to ``factors[i] (o + pulls[i] (w - o))``."""
    _launch(_kernels().combine, weights, _vector(pulls), _vector(factors), lists=[weights, olds])


def pull_towards_(weights: Sequence[Tensor], origin: Sequence[Tensor], shares: Tensor) -> None:
    """Take the share ``shares[i]`` of its distance from the origin from tensor ``i``."""
    _launch(_kernels().pull, weights, _vector(shares), lists=[weights, origin])


def add_scaled(
    out: Sequence[Tensor],
    base: Sequence[Tensor],
    direction: Sequence[Tensor],
    origin: Sequence[Tensor] | None,
    factor: float,
) -> None:
    """Set ``out`` to ``base + factor (direction - origin)``; without an origin it is zero."""
    lists = [out, base, direction, direction if origin is None else origin]
    _launch(_kernels().add_scaled, out, float(factor), lists=lists, ORIGIN=origin is not None)


def rows_fit(weights: Sequence[Tensor]) -> bool:
    """Whether every row (index of dimension 0) fits into one program."""
    return all(_row_length(t) <= _LONGEST_ROW for t in weights)


def _by_row(
    kernel: Any, weights: Sequence[Tensor], *arguments: Any, lists: Sequence[Sequence[Tensor]], **options: Any
) -> None:
    addresses = [_table("address", tensors) for tensors in lists]
    lengths = _table("row length", weights)
    options["ALIGNED"] = _aligned(lists[:2]) and all(_row_length(t) % 16 == 0 for t in weights)
    for padded in sorted({_padded(_row_length(t)) for t in weights}):
        rows = _table("row", weights, padded)
        kernel[(len(rows),)](
            *addresses, lengths, rows, *arguments, BLOCK=padded, num_warps=4 if padded <= 2048 else 8, **options
        )


def rotate_(
    weights: Sequence[Tensor],
    olds: Sequence[Tensor],
    norms: Sequence[Tensor],
    squares: Sequence[Tensor],
    started: Tensor,
    *,
    lr: float | Tensor,
    eta: float | Tensor,
    average: float,
    eps: float,
    centre: bool,
) -> None:
    """Turn every row of the old weights, see `decaylab.decay.rules.rotational.Rotational`; squares are updated too."""
    tensor = isinstance(lr, Tensor) or isinstance(eta, Tensor)
    scalars = weights[0]
    if tensor:
        device = weights[0].device
        scalars = torch.stack([torch.as_tensor(x, dtype=torch.float32, device=device).reshape(()) for x in (lr, eta)])
    numbers = (0.0, 0.0) if tensor else (float(lr), float(eta))
    _by_row(
        _kernels().rotate, weights, _vector(started), scalars, *numbers, float(average), float(eps),
        lists=[weights, olds, norms, squares], TENSOR=tensor, CENTRE=centre,
    )  # fmt: skip


def cap_rows_(weights: Sequence[Tensor], ceilings: Tensor) -> None:
    """Shrink every row whose norm is above ``ceilings[i]`` to that norm."""
    _by_row(_kernels().cap_rows, weights, _vector(ceilings), lists=[weights])
