"""Preparation of an objective from a model, a loss and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from decaylab.curvature.loss_check import check_mean
from decaylab.curvature.model_copy import plain_kernels, private_copy
from decaylab.curvature.objective import Objective
from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError

# What one chunk may keep for a backward pass, and its most points, unless the caller chooses the chunk size. Second
# derivatives and unfolded convolutions keep some four times as much.
_CHUNK_BYTES = {"cpu": 128 * 2**20}


_CHUNK_BYTES_ELSEWHERE = 2**30


_LARGEST_CHUNK = {"cpu": 128}


_LARGEST_CHUNK_ELSEWHERE = 1024


def objective(
    model: nn.Module,
    loss_fn: LossFunction | nn.Module | None,
    batches: Iterable[Any],
    *,
    chunk_size: int | None = None,
) -> Objective:
    """Prepare a model and its data for curvature.

    Args:
        model: The model. It is not changed: eval mode, float32 and hooks are those of a private copy.
        loss_fn: ``loss_fn(model, batch)``, the mean loss over the points of a batch, which calls ``model(...)`` once;
            or a criterion of torch on ``(outputs, targets)``: an ``nn.Module`` such as ``nn.CrossEntropyLoss()``, or
            a function of ``torch.nn.functional``. None for what needs outputs only.
        batches: Batches (tuples, lists or dicts of tensors whose first dimension counts points), gone through once.
            A ``DataLoader`` will do. All points are kept where they are; a chunk at a time goes to the device.
        chunk_size: Points differentiated together; None chooses it so that a chunk keeps some 128 MiB for
            a backward pass (1 GiB on a GPU), and second derivatives some four times that.

    Returns:
        The objective.

    Raises:
        DecaylabError: No trainable parameters, no points, a batch of tensors with different numbers of points, a loss
            that is not the mean over points, or BatchNorm without running statistics.
    """
    private = private_copy(model)
    trainable = [(name, p) for name, p in private.named_parameters() if p.requires_grad]
    if not trainable:
        raise DecaylabError("the model has no trainable parameters (requires_grad): there is nothing to differentiate")
    leaves, structure = _gather(batches)
    made = Objective(
        model=private,
        names=tuple(name for name, _ in trainable),
        parameters=tuple(p for _, p in trainable),
        num_points=len(leaves[0]),
        chunk_size=chunk_size or 1,
        device=trainable[0][1].device,
        dtype=trainable[0][1].dtype,
        leaves=tuple(leaves),
        _loss_fn=_as_loss(loss_fn),
        _structure=structure,
    )
    if chunk_size is not None and chunk_size < 1:
        raise DecaylabError(f"chunk_size must be at least 1, not {chunk_size}")
    with plain_kernels(made.device):
        saved = check_mean(made)
    if chunk_size is None:
        kept = _CHUNK_BYTES.get(made.device.type, _CHUNK_BYTES_ELSEWHERE) // max(saved, 1)
        size = min(_LARGEST_CHUNK.get(made.device.type, _LARGEST_CHUNK_ELSEWHERE), kept)
        return replace(made, chunk_size=max(1, size))
    return made


def _as_loss(loss_fn: LossFunction | nn.Module | None) -> LossFunction | None:
    torch_function = getattr(loss_fn, "__module__", "") == "torch.nn.functional"
    if not isinstance(loss_fn, nn.Module) and not torch_function:
        return loss_fn
    criterion: Callable[[Any, Any], Tensor] = loss_fn  # type: ignore[assignment]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs, targets = batch
        return criterion(model(inputs), targets)

    return loss


def _gather(batches: Iterable[Any]) -> tuple[list[Tensor], pytree.TreeSpec]:
    """Join all batches, leaf by leaf. A shuffling DataLoader draws from the global random state: put it back."""
    parts: list[Sequence[Tensor]] = []
    structure = None
    with torch.random.fork_rng(devices=[]):
        for batch in batches:
            leaves, structure = pytree.tree_flatten(batch)
            if not leaves or not all(isinstance(leaf, Tensor) and leaf.ndim for leaf in leaves):
                raise DecaylabError("a batch has to be made of tensors whose first dimension counts its points")
            if len({len(leaf) for leaf in leaves}) != 1:
                raise DecaylabError(f"tensors of one batch have different lengths: {[len(leaf) for leaf in leaves]}")
            parts.append([leaf.detach() for leaf in leaves])
    if structure is None or not sum(len(part[0]) for part in parts):
        raise DecaylabError("there are no points: batches is empty (an iterator that was used up?)")
    return [torch.cat(list(column)) if len(parts) > 1 else column[0] for column in zip(*parts, strict=True)], structure
