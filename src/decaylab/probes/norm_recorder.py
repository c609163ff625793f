"""Recorder of the norm of every weight tensor after every optimizer step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from decaylab.errors import DecaylabError
from decaylab.params.inner_optimizer import inner_optimizer
from decaylab.params.nested_step import is_nested
from decaylab.tensors.foreach import by_kind, norms
from decaylab.tensors.norm_trajectory import NormTrajectory

_CHUNK = 1024


class NormRecorder:
    """The norms of some parameters after every step of an optimizer, from one foreach call a step.

    Nothing is copied off the device before 1,024 steps have gathered. Attach decay rules first: what a rule that is
    attached later does after the step is not seen.

    Args:
        optimizer: Whose steps are recorded.
        named: The parameters by name; those that no param group holds are left out.

    Raises:
        DecaylabError: The optimizer holds none of them.
    """

    def __init__(self, optimizer: Optimizer, named: Mapping[str, Tensor]) -> None:
        stepped = inner_optimizer(optimizer)
        held = {id(p) for group in stepped.param_groups for p in group["params"]}
        self._named = {name: p for name, p in named.items() if id(p) in held}
        if not self._named:
            raise DecaylabError("the optimizer holds no parameter of the model: there are no norms to record")
        self._kinds = by_kind(list(self._named.values()))
        names = {id(p): name for name, p in self._named.items()}
        self._names = tuple(names[id(p)] for kind in self._kinds for p in kind)
        self._past: list[Tensor] = []
        self._now: Tensor | None = None
        self._filled = 0
        self._hook = stepped.register_step_post_hook(self._after_step)

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if is_nested(optimizer):
            return
        each = [norms(kind) for kind in self._kinds]
        row = each[0] if len(each) == 1 else torch.cat([part.to(each[0].device, torch.float64) for part in each])
        if self._now is None or self._filled == len(self._now):
            self._settle()
            self._now = row.new_empty(_CHUNK, len(row))
        self._now[self._filled] = row
        self._filled += 1

    def _settle(self) -> None:
        if self._now is not None and self._filled:
            self._past.append(self._now[: self._filled].cpu())
        self._now, self._filled = None, 0

    @property
    def norms(self) -> Tensor:
        """What was recorded, of shape (steps, tensors)."""
        self._settle()
        if len(self._past) > 1:
            self._past = [torch.cat(self._past)]
        return self._past[0] if self._past else torch.empty(0, len(self._names))

    def trajectory(self) -> NormTrajectory:
        """Return what was recorded, in the order of the names in the model.

        Raises:
            DecaylabError: A norm was not finite: the training diverged.
        """
        shapes = {name: tuple(p.shape) for name, p in self._named.items()}
        found = NormTrajectory(self.norms, self._names, tuple(shapes[name] for name in self._names))
        return found.select(list(self._named))

    def state_dict(self) -> dict[str, Any]:
        """Return what was recorded, for a checkpoint."""
        return {"norms": self.norms, "names": list(self._names)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what was recorded before a checkpoint.

        Raises:
            DecaylabError: It is of other parameters.
        """
        if tuple(state["names"]) != self._names:
            raise DecaylabError("the recorded norms are of other parameters than those of this optimizer")
        self._settle()
        self._past = [state["norms"].cpu()] if len(state["norms"]) else []

    def remove(self) -> None:
        """Stop recording; what was recorded stays."""
        self._hook.remove()


def record_norms(optimizer: Optimizer, model: nn.Module, names: Iterable[str] | None = None) -> NormRecorder:
    """Record the norm of every weight tensor of a model after every step of its optimizer, for another run to follow.

    Args:
        optimizer: Any ``torch.optim.Optimizer``; decay rules are attached before.
        model: The model.
        names: Parameters to record; by default all that the optimizer holds.

    Returns:
        The recorder; ``recorder.trajectory().save("norms.safetensors")`` writes what `decaylab.decay.follow_norms`
        follows, and ``recorder.remove()`` stops.

    Raises:
        DecaylabError: The optimizer holds no parameter of the model.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> recorder = record_norms(optimizer, model)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> recorder.trajectory().norms.shape
        torch.Size([1, 1])
    """
    chosen = None if names is None else set(names)
    own = dict(model.named_parameters())
    if chosen is not None and chosen - own.keys():
        raise DecaylabError(f"the model has no parameter {sorted(chosen - own.keys())[0]}")
    return NormRecorder(optimizer, {n: p for n, p in own.items() if chosen is None or n in chosen})
