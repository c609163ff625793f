"""Rule that gives a training the weight norms of another one, and its attaching by the names of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from decaylab.conventions.step_decay import HELD_NORM, DecayTerms
from decaylab.decay.attachment import Handle, attach
from decaylab.decay.rule import Part, Rule, Step
from decaylab.errors import DecaylabError
from decaylab.params.inner_optimizer import inner_optimizer
from decaylab.tensors.foreach import norms, safe_ratio, scale_
from decaylab.tensors.norm_trajectory import NormTrajectory

State = dict[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class FollowNorms(Rule):
    r"""Follow recorded norms: after step t ``w <- n_t w / ||w||``, with ``n_t`` the norm that was recorded at step t.

    The control of every claim that weight decay acts through the norms of the weights: a training without decay that
    follows the norms of one with decay, tensor by tensor and step by step, has what decay does to norms and nothing
    else. What is left of decay's effect is regularisation. Kosson et al. 2023 (arXiv 2305.17212) hold norms at the
    equilibrium of decay in the same spirit; here they are those of a run.

    Steps are counted from attaching. After the last recorded step the last norm holds. A zero weight stays zero, and a
    zero gradient projects too. `follow_norms` attaches the rule by the names of parameters; by itself it gives column k
    to the k-th parameter that it acts on, in the order of the optimizer's groups.

    Attributes:
        norms: Of shape (steps, tensors): row t - 1 holds the norms after step t.
    """

    norms: Tensor

    norm_based: ClassVar[bool] = True
    decays: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.norms.dim() != 2 or not self.norms.numel() or not self.norms.is_floating_point():
            raise DecaylabError(
                f"FollowNorms needs norms of shape (steps, tensors), at least one of each, got "
                f"{tuple(self.norms.shape)} of {self.norms.dtype}"
            )

    @property
    def counts_steps(self) -> bool:
        """It does."""
        return True

    def prepare(self, params: list[Tensor], state: State, shared: dict[str, float]) -> None:
        """Give the parameters their columns."""
        first, columns = int(shared.get("columns", 0)), self.norms.shape[1]
        if first + len(params) > columns:
            raise DecaylabError(
                f"FollowNorms has the norms of {columns} tensors and was given {first + len(params)} parameters: "
                "choose them with params="
            )
        for column, p in enumerate(params, start=first):
            state[p]["column"] = torch.tensor(float(column), device=p.device)
        shared["columns"] = float(first + len(params))

    def decay_terms(self, part: Part) -> DecayTerms:
        """State that a norm is held."""
        return HELD_NORM

    def after(self, step: Step) -> None:
        """Rescale every tensor to its recorded norm."""
        row = self.norms[min(step.index, len(self.norms)) - 1]
        for part in step.parts:
            now = norms(part.params, part.weights)
            target = row.to(now.device, now.dtype, non_blocking=True)[step.column(part, "column").long()]
            scale_(part.weights, safe_ratio(target, now))


def follow_norms(
    optimizer: Optimizer,
    model: nn.Module,
    trajectory: NormTrajectory,
    *,
    names: Iterable[str] | None = None,
) -> Handle:
    """Let a model's parameters follow the norms that parameters of the same names had in another training.

    Args:
        optimizer: Any optimizer with parameters of the model, see `decaylab.decay.attach`.
        model: The model.
        trajectory: What `decaylab.probes.record_norms` recorded.
        names: Names of the parameters that follow, as ``model.named_parameters()`` has them; by default all that were
            recorded.

    Returns:
        The handle of the attached `FollowNorms`.

    Raises:
        DecaylabError: A parameter is missing in the model, in the optimizer or among those recorded, or had another
            shape.
    """
    own = dict(model.named_parameters())
    chosen = list(trajectory.names if names is None else names)
    picked = trajectory.select(chosen)
    for name, shape in zip(picked.names, picked.shapes, strict=True):
        if name not in own:
            raise DecaylabError(f"the model has no parameter {name}, whose norms were recorded: choose with names=")
        if tuple(own[name].shape) != shape:
            raise DecaylabError(f"{name} has the shape {tuple(own[name].shape)}, and {shape} where it was recorded")
    by_tensor = {own[name]: name for name in chosen}
    held = [p for group in inner_optimizer(optimizer).param_groups for p in group["params"] if p in by_tensor]
    if len(held) < len(by_tensor):
        missing = next(name for p, name in by_tensor.items() if all(p is not q for q in held))
        raise DecaylabError(f"{missing} is not in the optimizer: add it first, or choose with names=")
    ordered = picked.select([by_tensor[p] for p in held])
    return attach(optimizer, FollowNorms(ordered.norms.to(held[0].device)), params=held)
