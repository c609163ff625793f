"""What is differentiated: the mean loss of a private copy of the model over a fixed set of points, in chunks.

Every curvature probe starts here. The copy shares the storage of the weights (or holds them in float32 where they are
half precision), is in eval mode and belongs to the probe alone, so nothing a probe does (modes, hooks, flags of
``requires_grad``) is visible in the user's model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from decaylab.errors import DecaylabError
from decaylab.probes.context import LossFunction
from decaylab.probes.mean_loss import check_mean
from decaylab.probes.private_copy import plain_kernels, private_copy

# What one chunk may keep for a backward pass, and its most points, unless the caller chooses the chunk size. Second
# derivatives and unfolded convolutions keep some four times as much.
_CHUNK_BYTES = {"cpu": 128 * 2**20}
_CHUNK_BYTES_ELSEWHERE = 2**30
_LARGEST_CHUNK = {"cpu": 128}
_LARGEST_CHUNK_ELSEWHERE = 1024


_ONE_CALL = (
    "loss_fn has to call model(...) exactly once, so that the loss can be told from the network; it called it {} times"
)


class _Outputs(Exception):
    """Carries the model's outputs out of a loss function that need not go on."""

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs


def _stop(module: nn.Module, args: Any, outputs: Any) -> None:
    raise _Outputs(outputs)


@dataclass(frozen=True, eq=False)
class Objective:
    r"""The function :math:`L(\theta) = \frac1N \sum_n \ell_n(\theta)` of the trainable parameters.

    Attributes:
        model: The private copy.
        names: Names of the trainable parameters, in the order of ``model.named_parameters()``.
        parameters: The copy's own parameters.
        num_points: N, the number of points.
        chunk_size: Points that are differentiated together; memory is proportional to it, results do not depend on it.
        device: Where the model is.
        dtype: float32, or float64 for a float64 model.
        leaves: The columns of the data, first dimension points, where the user has them.
    """

    model: nn.Module
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    num_points: int
    chunk_size: int
    device: torch.device
    dtype: torch.dtype
    leaves: tuple[Tensor, ...]
    _loss_fn: LossFunction | None
    _structure: pytree.TreeSpec

    @property
    def num_parameters(self) -> int:
        """Number of entries of all trainable parameters, the side of the Hessian."""
        return sum(p.numel() for p in self.parameters)

    @property
    def has_loss(self) -> bool:
        """Whether there is a loss, or outputs only."""
        return self._loss_fn is not None

    def take(self, index: slice | Tensor) -> Any:
        """Return a batch of some points, in the structure of the user's batches, on the device of the model."""
        leaves = [leaf[index].to(self.device, non_blocking=True) for leaf in self.leaves]
        leaves = [leaf.to(self.dtype) if leaf.is_floating_point() else leaf for leaf in leaves]
        return pytree.tree_unflatten(leaves, self._structure)

    def chunks(self, size: int | None = None) -> Iterator[tuple[Any, int]]:
        """Iterate over all points as batches of at most ``size`` (the chunk size), each with its number of points."""
        size = size or self.chunk_size
        for start in range(0, self.num_points, size):
            stop = min(start + size, self.num_points)
            yield self.take(slice(start, stop)), stop - start

    def loss(self, batch: Any) -> Tensor:
        """Return the mean loss of a batch as a scalar with its graph."""
        if self._loss_fn is None:
            raise DecaylabError("this measurement needs a loss: pass loss_fn(model, batch)")
        return self._loss_fn(self.model, batch)

    def outputs(self, batch: Any) -> Tensor:
        """Return what the model gives for a batch, shape (points, ...), with its graph."""
        if self._loss_fn is None:
            return _tensor(self.model(batch[0] if isinstance(batch, (tuple, list)) else batch))
        hook = self.model.register_forward_hook(_stop)
        try:
            self.loss(batch)
        except _Outputs as found:
            return _tensor(found.outputs)
        finally:
            hook.remove()
        raise DecaylabError(_ONE_CALL.format(0))

    def outputs_and_loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the model's outputs and the mean loss that was computed from them."""
        seen: list[Any] = []
        hook = self.model.register_forward_hook(lambda module, args, output: seen.append(output))
        try:
            loss = self.loss(batch)
        finally:
            hook.remove()
        if len(seen) != 1:
            raise DecaylabError(_ONE_CALL.format(len(seen)))
        return _tensor(seen[0]), loss

    def loss_at(self, outputs: Tensor, batch: Any) -> Tensor:
        """Return the mean loss of a batch as a function of given outputs; the network is not run."""
        self.model.forward = lambda *args, **kwargs: outputs
        try:
            return self.loss(batch)
        finally:
            del self.model.forward

    def flat(self, tensors: Iterable[Tensor]) -> Tensor:
        """Concatenate one tensor a parameter into a vector."""
        return torch.cat([t.reshape(-1) for t in tensors])

    def unflat(self, vector: Tensor) -> list[Tensor]:
        """Split a vector into one tensor a parameter."""
        parts = vector.split([p.numel() for p in self.parameters])
        return [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]

    def generator(self, seed: int) -> torch.Generator:
        """Return a generator of its own on the device of the model."""
        return torch.Generator(self.device).manual_seed(seed)


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


def _tensor(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise DecaylabError(f"the model has to return one tensor of outputs here, not {type(outputs).__name__}")
    return outputs
