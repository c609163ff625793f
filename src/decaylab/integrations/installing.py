"""What the callbacks of all training frameworks do to an optimizer: attach a rule, then watch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from decaylab.curvature.types import LossFunction
from decaylab.decay import Handle, Rule, attach
from decaylab.errors import DecaylabError
from decaylab.monitor.log import Log, Sink, watch
from decaylab.params import Role, assign, decayed
from decaylab.params.groups import UNDECIDED
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
        sinks: Where records go besides the log. They stay open when the log is removed, see `close_sinks`.
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

    def attach(self, model: nn.Module, optimizer: Any, beside_others: bool = False) -> Handle | None:
        """Attach the rule to the parameters that decay, also to those that join the optimizer later.

        Args:
            model: The model.
            optimizer: Its optimizer, wrapped or not.
            beside_others: There are other optimizers, so this one may hold nothing that decays.

        Returns:
            The rule's handle; None where there is no rule or, beside others, nothing for it.

        Raises:
            DecaylabError: The rule does not fit the optimizer, or none of its parameters decays by role.
        """
        if self.rule is None:
            return None
        chosen = _ByRole(self, model)
        if not any(chosen(p) for group in inner_optimizer(optimizer).param_groups for p in group["params"]):
            if beside_others:
                return None
            raise DecaylabError(f"no parameter of this optimizer has a role that decays ({', '.join(self.decay)})")
        return attach(optimizer, self.rule, chosen)

    def watch(self, model: nn.Module, optimizer: Any, prefix: str = "") -> Log:
        """Watch an optimizer.

        Args:
            model: The model.
            optimizer: Its optimizer, wrapped or not.
            prefix: Put before every key on its way to the sinks, so that several optimizers can share them.

        Returns:
            The log.
        """
        return watch(
            model, optimizer, every=self.every, probes=self.probes, loss_fn=self.loss_fn, batches=self.batches,
            roles=self.roles, sinks=[_SharedSink(sink, prefix) for sink in self.sinks],
        )  # fmt: skip

    def close_sinks(self) -> None:
        """Close the sinks; one that fails is said, and the others are closed."""
        for sink in self.sinks:
            try:
                sink.close()
            except Exception as error:  # somebody else's tracker must not end a training that is done
                warnings.warn(f"{type(sink).__name__} did not close: {type(error).__name__}: {error}", stacklevel=2)


class _ByRole:
    """Whether a parameter decays by its role in a model; one whose role nobody knows is said when it joins later."""

    def __init__(self, installation: Installation, model: nn.Module) -> None:
        self._installation, self._model = installation, model
        self._open: set[Tensor] = set()
        self._said: set[Tensor] = set()
        self._decays = self._look(strict=True)

    def __call__(self, param: Tensor) -> bool:
        if param not in self._decays and param not in self._said:
            self._decays = self._look(strict=False)  # the model has grown
        unknown = param not in self._decays or (param in self._open and param.requires_grad)
        if unknown and param not in self._said:
            self._said.add(param)
            warnings.warn(
                f"a parameter of shape {tuple(param.shape)} that joined the optimizer does not decay by the rule: its "
                f"role is not known; give the callback roles=",
                stacklevel=2,
            )
        return self._decays.get(param, False)

    def _look(self, strict: bool) -> dict[Tensor, bool]:
        asked = self._installation
        items = assign(self._model, asked.roles)
        chosen = cast(tuple[Role, ...], asked.decay)
        verdicts = decayed(items, decay=chosen, exclude=asked.exclude, strict=strict)
        self._open = {item.parameter for item, _, reason in verdicts if reason == UNDECIDED}
        return {item.parameter: yes for item, yes, _ in verdicts}


class _SharedSink:
    """A sink of several logs: keys get a prefix, and it stays open when one of the logs is removed."""

    def __init__(self, sink: Sink, prefix: str) -> None:
        self._sink, self._prefix = sink, prefix

    def write(self, record: Mapping[str, float]) -> None:
        """Pass one record on."""
        self._sink.write({key if key == "step" else self._prefix + key: value for key, value in record.items()})

    def close(self) -> None:
        """Leave the sink open."""


def plain(state: Any) -> Any:
    """Turn a log's state into numbers, strings and containers of them, for checkpoints that take nothing else."""
    if isinstance(state, Mapping):
        return {str(key): plain(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [plain(value) for value in state]
    return float(state) if isinstance(state, torch.Tensor) else state


def restore(log: Log, saved: Any, where: str) -> bool:
    """Let a log go on from what a checkpoint holds of it; one that is damaged is said, and the log starts anew.

    Args:
        log: The log.
        saved: What was saved.
        where: Where that was found, for the warning.

    Returns:
        Whether it goes on.
    """
    fresh = log.state_dict()
    try:
        log.load_state_dict(saved)
        return True
    except Exception as error:  # whatever a file holds, a training that can go on goes on
        log.load_state_dict(fresh)
        lines = str(error).splitlines() or [type(error).__name__]
        warnings.warn(f"{where} is damaged, so its log starts anew: {lines[0]}", stacklevel=3)
        return False
