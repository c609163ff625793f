"""Rows of a weight that a gradient touched, for rules that act on them alone."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from decaylab.errors import DecaylabError, unknown

Rows = Literal["all", "touched"]


def check_rows(rows: str) -> Rows:
    """Return the choice of rows.

    Raises:
        DecaylabError: It is none.
    """
    for known in get_args(Rows):
        if rows == known:
            return known  # type: ignore[no-any-return]
    raise unknown("rows", str(rows), get_args(Rows))


def touched(grad: Tensor) -> Tensor:
    """Return the indices of the rows (of dimension 0) that a gradient has entries for.

    Of a sparse gradient these are its indices; of a dense one the rows that are not zero: this waits for a GPU.
    """
    if grad.is_sparse:
        return grad.coalesce().indices()[0]
    if grad.layout is not torch.strided:
        raise DecaylabError(f"rows of a gradient of layout {grad.layout} cannot be told apart: use rows='all'")
    return (grad if grad.dim() < 2 else grad.flatten(1).any(dim=1)).nonzero().flatten()


def rows_of(grad: Tensor, index: Tensor) -> Tensor:
    """Return the rows of a gradient at ``index``, which `touched` gave."""
    return grad.coalesce().values() if grad.is_sparse else grad.index_select(0, index)


def with_rows(grad: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """Return a gradient like ``grad``, of its layout, whose rows at ``index`` are others."""
    if grad.is_sparse:
        return torch.sparse_coo_tensor(index[None], rows, grad.shape, is_coalesced=True, check_invariants=False)
    return grad.index_copy(0, index, rows)
