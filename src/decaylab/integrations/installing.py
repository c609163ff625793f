"""What do the callbacks of all training frameworks do to an optimizer? They attach a rule, then watch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from decaylab.curvature.types import LossFunction
from decaylab.decay import Handle, Rule, attach
from decaylab.errors import DecaylabError
from decaylab.monitor.log import Log, Sink, watch
from decaylab.params import assign, decayed
from decaylab.params.inner_optimizer import inner_optimizer
from decaylab.probes.context import Probe
from decaylab.probes.registry import DEFAULT_PROBES


@dataclass(frozen=True)
class Installation:
    """What to install on an optimizer that a framework makes.

    Attributes:
        rule: A decay rule of `decaylab.decay`, or None to leave decay to the optimizer. With a rule the optimizer's
            own weight decay must be 0.
        decay: Roles that the rule acts on.
        exclude: Roles, parameter names or patterns that it never acts on.
        every: Steps between two records.
        probes: What to record; empty to record nothing.
        loss_fn: ``loss_fn(model, batch)`` for probes that run the model.
        batches: Their batches.
        roles: Overrides of parameter roles.
        sinks: Where records go besides the log.
    """

    rule: Rule | None = None
    decay: tuple[str, ...] = ("matrix", "embedding")
    exclude: tuple[str, ...] = ()
    every: int = 50
    probes: Iterable[str | Probe] = DEFAULT_PROBES
    loss_fn: LossFunction | None = None
    batches: Sequence[Any] | None = None
    roles: Mapping[str, Any] | None = None
    sinks: Sequence[Sink] = field(default_factory=tuple)

    def install(self, model: nn.Module, optimizer: Any) -> tuple[Handle | None, Log]:
        """Attach the rule to the parameters that decay, and watch.

        Args:
            model: The model.
            optimizer: Its optimizer, wrapped or not.

        Returns:
            The rule's handle, and the log.

        Raises:
            DecaylabError: The rule does not fit the optimizer, or none of its parameters decays by role.
        """
        inner = inner_optimizer(optimizer)
        handle = attach(inner, self.rule, self._decaying(model, inner)) if self.rule is not None else None
        log = watch(
            model, inner, every=self.every, probes=self.probes, loss_fn=self.loss_fn, batches=self.batches,
            roles=self.roles, sinks=self.sinks,
        )  # fmt: skip
        return handle, log

    def _decaying(self, model: nn.Module, optimizer: Optimizer) -> list[Tensor]:
        held = {p for group in optimizer.param_groups for p in group["params"]}
        items = decayed(assign(model, self.roles), decay=self.decay, exclude=self.exclude)
        chosen: list[Tensor] = [item.parameter for item, yes, _ in items if yes and item.parameter in held]
        if not chosen:
            raise DecaylabError(f"no parameter of this optimizer has a role that decays ({', '.join(self.decay)})")
        return chosen


def plain(state: Any) -> Any:
    """Turn a log's state into numbers, strings and containers of them, for checkpoints that take nothing else."""
    if isinstance(state, Mapping):
        return {str(key): plain(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [plain(value) for value in state]
    return float(state) if isinstance(state, torch.Tensor) else state
