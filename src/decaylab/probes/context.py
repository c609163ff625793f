"""What a probe may look at: one recorded step, as a frozen object of tensors that nobody writes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from decaylab.curvature.shared_view import evaluation_twin
from decaylab.curvature.types import LossFunction
from decaylab.probes.optimizer_rates import Rates
from decaylab.tensors.reduce import tensor_norms

if TYPE_CHECKING:
    from decaylab.probes.microbatch_hooks import Microbatches

Measurement: TypeAlias = "dict[str, Tensor | float]"


class Probe(Protocol):
    """What every probe is: a frozen dataclass with a name, its needs and one method.

    Attributes:
        name: The name of its row in the table.
        needs: What it reads besides the weights, see `decaylab.probes.registry.ProbeRow`.
    """

    @property
    def name(self) -> str:
        """The name of its row in the table."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What it reads besides the weights."""
        ...

    def measure(self, context: Context) -> Measurement:
        """Read the context and return keys and values; values stay on the device (0-d tensors) or are floats."""
        ...


@dataclass(frozen=True, eq=False)
class Context:
    """One recorded step, or a model by itself (then everything about a step is absent).

    Vectors over parameters have one entry per name, in the order of ``names``.

    Attributes:
        step: Index of the step.
        model: The model itself, unwrapped. Run `evaluation_model` instead of it.
        parameters: Name to weights after the step, detached.
        roles: Name to role (``"matrix"``, ``"embedding"``, ``"head"``, ``"norm"``, ``"bias"``, ``"scalar"``).
        gradients: Name to gradient as the optimizer applied it (unscaled, accumulated, clipped), of sparse ones the
            entries that are there; names without a gradient are missing. None when there was no step.
        previous: Name to weights before the step. None unless a probe needs them.
        optimizer: The optimizer; probes read its state.
        rates: Learning rate and decay in force, one entry per name. None without an optimizer.
        microbatches: What the hooks saw of every backward pass of this step, see `decaylab.probes.microbatch_noise`.
        loss_fn: ``loss_fn(model, batch)``, the mean loss of a batch.
        batches: Batches for probes that run the model. Same batches every time, so that records are comparable.
    """

    step: int
    model: nn.Module
    parameters: Mapping[str, Tensor]
    roles: Mapping[str, str]
    gradients: Mapping[str, Tensor] | None = None
    previous: Mapping[str, Tensor] | None = None
    optimizer: torch.optim.Optimizer | None = None
    rates: Rates | None = None
    microbatches: Microbatches | None = None
    loss_fn: LossFunction | None = None
    batches: Iterable[Any] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in the order of every vector."""
        return tuple(self.parameters)

    @cached_property
    def device(self) -> torch.device:
        """Where the vectors live: the device of the first parameter."""
        return next(iter(self.parameters.values())).device

    @cached_property
    def evaluation_model(self) -> nn.Module:
        """The model in eval mode as a twin that shares its tensors: running it leaves the model alone."""
        return evaluation_twin(self.model)

    @cached_property
    def weight_norms(self) -> Tensor:
        """Norm of each parameter after the step, shape (P,)."""
        return tensor_norms(list(self.parameters.values()))

    @cached_property
    def previous_norms(self) -> Tensor | None:
        """Norm of each parameter before the step, shape (P,)."""
        return None if self.previous is None else tensor_norms(list(self.previous.values()))

    @cached_property
    def updates(self) -> Mapping[str, Tensor] | None:
        """Name to weights after minus weights before the step, decay included."""
        if self.previous is None:
            return None
        new, old = list(self.parameters.values()), list(self.previous.values())
        return dict(zip(self.names, torch._foreach_sub(new, old), strict=True))

    @cached_property
    def update_norms(self) -> Tensor | None:
        """Norm of each parameter's update, shape (P,)."""
        return None if self.updates is None else tensor_norms(list(self.updates.values()))

    @cached_property
    def gradient_norms(self) -> Tensor | None:
        """Norm of each parameter's gradient, shape (P,); 0 where there is none."""
        return self.over_names(self.gradients) if self.gradients else None

    def over_names(self, tensors: Mapping[str, Tensor], order: float = 2.0) -> Tensor:
        """Norms of ``tensors`` as a vector over all names, 0 for names that are missing."""
        norms = tensor_norms(list(tensors.values()), order).to(self.device)
        if len(tensors) == len(self.names):
            return norms
        at = torch.tensor([i for i, name in enumerate(self.names) if name in tensors], device=self.device)
        return torch.zeros(len(self.names), dtype=norms.dtype, device=self.device).index_copy(0, at, norms)

    def sums(self, columns: Tensor, chosen: Sequence[bool] | None = None) -> RoleSums:
        """Add up rows of a table over parameters, for all parameters and for each role.

        Args:
            columns: Shape (P, K).
            chosen: Which parameters; all by default. Roles without a chosen parameter are left out.

        Returns:
            The sums.
        """
        kept = [chosen is None or chosen[i] for i in range(len(self.names))]
        present = dict.fromkeys(self.roles[name] for name, keep in zip(self.names, kept, strict=True) if keep)
        place = {role: i for i, role in enumerate(present)}
        at = [place[self.roles[name]] if keep else len(place) for name, keep in zip(self.names, kept, strict=True)]
        sums = torch.zeros(len(place) + 1, columns.shape[1], dtype=columns.dtype, device=columns.device)
        # Not a product with zeros and ones: a NaN in one role would be in all.
        sums = sums.index_add_(0, torch.tensor(at, device=columns.device), columns)[: len(place)]
        return RoleSums(("", *place), torch.cat([sums.sum(dim=0, keepdim=True), sums]))


@dataclass(frozen=True, eq=False)
class RoleSums:
    """Sums over all parameters (label ``""``) and over those of each role.

    Attributes:
        labels: One a row.
        values: Shape (rows, K).
    """

    labels: tuple[str, ...]
    values: Tensor

    def named(self, key: str, values: Tensor) -> dict[str, Tensor]:
        """Name one value a row: ``key`` for all parameters, ``key/role`` for a role."""
        keys = (f"{key}/{label}" if label else key for label in self.labels)
        return dict(zip(keys, values.unbind(), strict=True))
