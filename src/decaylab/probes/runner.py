"""When are probes read during training, and how do their numbers leave the device?"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from decaylab.curvature.shared_view import unwrap
from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError
from decaylab.params.inner_optimizer import inner_optimizer
from decaylab.probes.context import Context, Measurement, Probe
from decaylab.probes.cumulative_decay import Elapsed
from decaylab.probes.microbatch_hooks import MicrobatchHooks
from decaylab.probes.optimizer_rates import GroupRates, read_rates, spread
from decaylab.probes.registry import rows
from decaylab.references import load
from decaylab.tensors.reduce import accurate, entries, stack_scalars


def make(names: Iterable[str | Probe], seed: int | None = None) -> list[Probe]:
    """Make probes from their names.

    Args:
        names: Names from the table, or probes that are made already (with settings of their own).
        seed: Seed for those that draw random numbers; None leaves their own.

    Returns:
        The probes, in the order given, a repeated name once.
    """
    found: dict[str, Probe] = {}
    for name in names:
        if isinstance(name, str):
            row = rows([name])[0]
            made: Any = load(row.path)()
            if seed is not None and is_dataclass(made) and any(item.name == "seed" for item in fields(made)):
                made = replace(made, seed=seed)  # type: ignore[type-var]
            probe: Probe = made
        else:
            probe = name
        found.setdefault(probe.name, probe)
    return list(found.values())


def to_floats(measured: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Bring measured values to the host with one wait for the device, however many there are."""
    tensors = {key: value.detach() for key, value in measured.items() if isinstance(value, Tensor)}
    numbers: list[float] = []
    if tensors:
        numbers = stack_scalars(list(tensors.values())).tolist()
    read = dict(zip(tensors, numbers, strict=True))
    return {key: read[key] if key in read else float(value) for key, value in measured.items()}


class ProbeRunner:
    """Reads probes every so many optimizer steps, around the step.

    It only reads: with and without it the weights are bit-equal. Weights are copied only before a step that is
    recorded, and only if a probe compares them.

    Attributes:
        probes: The probes.
        every: Steps between two records.
    """

    def __init__(
        self,
        names: Iterable[str | Probe],
        model: nn.Module,
        optimizer: Optimizer,
        *,
        every: int = 50,
        loss_fn: LossFunction | None = None,
        batches: Sequence[Any] | None = None,
        roles: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare to read ``names`` from ``model`` and ``optimizer``.

        Args:
            names: Names from the table, or probes.
            model: The model; wrappers (compiled, data parallel) are taken off.
            optimizer: The optimizer that steps it.
            every: A record is due at steps divisible by this.
            loss_fn: ``loss_fn(model, batch)``, for probes that run the model.
            batches: Their batches.
            roles: Overrides of parameter roles, see `decaylab.params.roles`.

        Raises:
            DecaylabError: Unknown probe, ``every`` not a whole number or below 1, a model that is no module, an
                optimizer of another model, a probe that needs a loss without one, or an override of a role that
                matches nothing.
        """
        from decaylab.params import roles as find_roles

        if not hasattr(every, "__index__") or every < 1:
            raise DecaylabError(f"every must be a whole number of at least 1, got {every!r}")
        if not isinstance(model, nn.Module):
            raise DecaylabError(f"the model has to be a torch module, got {type(model).__name__}")
        self.probes, self.every = make(names), every
        self._needs = frozenset().union(*(probe.needs for probe in self.probes))
        if "loss" in self._needs and (loss_fn is None or batches is None):
            lacking = [probe.name for probe in self.probes if "loss" in probe.needs]
            raise DecaylabError(f"the probe {lacking[0]!r} runs the model: give loss_fn= and batches=")
        self._loss_fn, self._batches = loss_fn, batches if batches is not None else ()
        self._model, self._optimizer = unwrap(model), inner_optimizer(optimizer)
        known = find_roles(self._model, roles, strict=False) if self.probes else {}
        everything = dict(self._model.named_parameters())
        self._parameters = {name: everything[name] for name in known if everything[name].requires_grad}
        self._roles = {name: known[name] for name in self._parameters}
        held = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        if self._parameters and not any(id(p) in held for p in self._parameters.values()):
            raise DecaylabError(
                "the optimizer holds none of the model's trainable parameters: give the optimizer that was made from"
                " this model's parameters()"
            )
        self._elapsed = Elapsed(self._parameters)
        self._rates: list[GroupRates] = []
        self._previous: dict[str, Tensor] | None = None
        self._ready: int | None = None
        self._stepped = self._had_gradients = False
        self._handle = self._optimizer.register_step_post_hook(self._note_step) if self.probes else None
        self._microbatches = MicrobatchHooks(self._parameters) if "microbatches" in self._needs else None
        if self._microbatches is not None:
            self._microbatches.arm()

    def due(self, step: int) -> bool:
        """Whether ``step`` is recorded."""
        return bool(self._parameters) and step % self.every == 0

    def before_step(self, step: int) -> None:
        """Call right before the optimizer steps.

        Args:
            step: Index of this step, counted by the caller.
        """
        if not self._parameters or self._captured():
            return
        self._rates = read_rates(self._optimizer)
        self._ready, self._stepped = step, False
        self._had_gradients = any(p.grad is not None for p in self._parameters.values())
        self._previous = None
        if self.due(step) and "previous" in self._needs:
            self._previous = {name: p.detach().clone() for name, p in self._parameters.items()}

    def _captured(self) -> bool:
        """Whether the step goes into a CUDA graph, which would break on reading a number and replays without us."""
        if not torch.cuda.is_initialized() or not torch.cuda.is_current_stream_capturing():
            return False
        warnings.warn(
            "decaylab's probes do not see the steps of a CUDA graph: to record one, take it outside of the graph",
            stacklevel=4,
        )
        return True

    def after_step(self, step: int) -> dict[str, float] | None:
        """Call right after the optimizer stepped, while the gradients are still there.

        Args:
            step: The index given to `before_step`.

        Returns:
            Keys and numbers if a record is due, else None. None too if the optimizer took no step since `before_step`
            (a gradient scaler called it off).
        """
        ready, stepped = self._ready, self._stepped
        self._ready, self._stepped = None, False
        if ready != step or not stepped:
            return None
        decays = (decay for group in self._rates for decay in group.decays)
        self._elapsed.count(decays, getattr(self._optimizer, "found_inf", None), self._had_gradients)
        measured = None
        if self.due(step):
            measured = self._measure(step)
            self._previous = None
        if self._microbatches is not None:
            self._microbatches.disarm()
            if self.due(step + 1):
                self._microbatches.arm()
        return measured

    def state_dict(self) -> dict[str, Any]:
        """What must survive an interruption: how many timescales of decay have passed, by param group and parameter."""
        return self._elapsed.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._elapsed.load_state_dict(state)

    def close(self) -> None:
        """Remove every hook from parameters and optimizer."""
        if self._handle is not None:
            self._handle.remove()
        if self._microbatches is not None:
            self._microbatches.disarm()

    def _note_step(self, *_: Any) -> None:
        self._stepped = True

    @torch.no_grad()
    def _measure(self, step: int) -> dict[str, float]:
        context = self._context(step)
        values: Measurement = {}
        for probe in self.probes:
            values |= probe.measure(context)
        return to_floats(values)

    def _context(self, step: int) -> Context:
        device = next(iter(self._parameters.values())).device
        weights = self._parameters.values()
        rates = spread(self._optimizer, self._rates, weights, device, accurate(device), self._elapsed)
        return Context(
            step=step,
            model=self._model,
            parameters={name: p.detach() for name, p in self._parameters.items()},
            roles=self._roles,
            gradients={name: entries(p.grad) for name, p in self._parameters.items() if p.grad is not None},
            previous=self._previous,
            optimizer=self._optimizer,
            rates=rates,
            microbatches=self._microbatches.seen() if self._microbatches is not None else None,
            loss_fn=self._loss_fn,
            batches=self._batches,
        )
