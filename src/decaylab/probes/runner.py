"""Probes read during training: hooks around the optimizer's step, and numbers brought from the device."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from decaylab.curvature.shared_view import unwrap
from decaylab.curvature.types import LossFunction
from decaylab.errors import DecaylabError
from decaylab.params.inner_optimizer import inner_optimizer
from decaylab.params.nested_step import is_nested, may_nest
from decaylab.probes.active_decay import DecayReader
from decaylab.probes.context import Context, Measurement, Probe
from decaylab.probes.cumulative_decay import Elapsed
from decaylab.probes.decay_account import DecaySource, sources
from decaylab.probes.decay_check import DecayCheck
from decaylab.probes.microbatch_hooks import MicrobatchHooks
from decaylab.probes.optimizer_rates import GroupRates, MeasuredDecay, read_rates, spread
from decaylab.probes.registry import rows
from decaylab.probes.watched_parameters import Change, WatchedParameters
from decaylab.references import load
from decaylab.tensors.reduce import accurate, entries, stack_scalars

_Hooks: TypeAlias = "OrderedDict[int, Any]"
_Method = TypeVar("_Method", bound=Callable[..., Any])


def _outside_graphs(method: _Method) -> _Method:
    """Keep a hook out of compiled steps: it is called between their graphs and is never compiled itself."""
    disable: Any = torch.compiler.disable
    return cast(_Method, disable(method))


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
        step: Index of the step that comes, once `hook` was called; the caller may set it.
        failures: Probes that have failed, by name, with the first error.
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
        guest: bool = False,
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
            guest: The training is somebody else's: a probe that fails warns once and never stops it, and decay that is
                counted is compared with what the weights lose (which waits for the device on a few records).

        Raises:
            DecaylabError: Unknown probe, ``every`` not a whole number or below 1, a model that is no module, an
                optimizer of another model, or a probe that needs a loss without one.
        """
        if not hasattr(every, "__index__") or every < 1:
            raise DecaylabError(f"every must be a whole number of at least 1, got {every!r}")
        if not isinstance(model, nn.Module):
            raise DecaylabError(f"the model has to be a torch module, got {type(model).__name__}")
        self.probes, self.every, self.step = make(names), every, 0
        self._needs = frozenset().union(*(probe.needs for probe in self.probes))
        if "loss" in self._needs and (loss_fn is None or batches is None):
            lacking = [probe.name for probe in self.probes if "loss" in probe.needs]
            raise DecaylabError(f"the probe {lacking[0]!r} runs the model: give loss_fn= and batches=")
        self._loss_fn, self._batches = loss_fn, batches if batches is not None else ()
        self._model, self._optimizer = unwrap(model), inner_optimizer(optimizer)
        self._guest = guest
        self.failures: dict[str, str] = {}
        self._watched = WatchedParameters(self._model, self._optimizer, roles) if self.probes else None
        parameters = self._watched.named if self._watched is not None else {}
        self._elapsed = Elapsed(parameters)
        self._reader, self._check = DecayReader(self._optimizer), DecayCheck(self._optimizer)
        self._rates: list[GroupRates] = []
        self._previous: dict[str, Tensor] | None = None
        self._ready: int | None = None
        self._stepped = self._had_gradients = False
        self._record: Callable[[int, dict[str, float] | None], None] | None = None
        self._handles: list[Any] = []
        if self.probes:
            self._handles.append(self._optimizer.register_step_post_hook(self._note_step))
        self._microbatches = MicrobatchHooks(parameters) if "microbatches" in self._needs else None
        if self._microbatches is not None:
            self._microbatches.arm()

    def hook(self, record: Callable[[int, dict[str, float] | None], None], first: int = 0) -> None:
        """Read around every step of the optimizer from now on.

        Args:
            record: Called after every step with its index, and with the numbers where a record is due, else None.
            first: Index of the next step.
        """
        self._record, self.step, self._nests = record, first, may_nest(type(self._optimizer))
        before = self._optimizer.register_step_pre_hook(self._pre_step)
        self._after = self._optimizer.register_step_post_hook(self._post_step)
        self._handles += [before, self._after]
        # Rules attached to the optimizer act in hooks too. The weights before the step are those before all of them,
        # and the weights after it those after all of them: be the first, and then the last.
        cast(_Hooks, self._optimizer._optimizer_step_pre_hooks).move_to_end(before.id, last=False)

    @_outside_graphs
    def _pre_step(self, *_: Any) -> None:
        if self._nests and is_nested(self._optimizer):
            return
        hooks = cast(_Hooks, self._optimizer._optimizer_step_post_hooks)
        if next(reversed(hooks)) != self._after.id:  # a rule may be newer
            hooks.move_to_end(self._after.id)
        self._guarded("reading the step", self.before_step, self.step)

    @_outside_graphs
    def _post_step(self, *_: Any) -> None:
        if self._nests and is_nested(self._optimizer):
            return
        measured = self._guarded("reading the step", self.after_step, self.step)
        step, self.step = self.step, self.step + 1
        assert self._record is not None
        self._record(step, measured)

    def _guarded(self, what: str, act: Callable[[Any], Any], argument: Any) -> Any:
        """Do something; where the training is somebody else's, an error is told once and never stops it."""
        if not self._guest:
            return act(argument)
        try:
            return act(argument)
        except Exception as error:  # whatever a foreign model, optimizer or probe raises
            if what not in self.failures:
                self.failures[what] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
                warnings.warn(
                    f"decaylab: {what} failed ({self.failures[what]}); the training goes on without it", stacklevel=4
                )
            return None

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """The parameters that are watched, by name."""
        return self._watched.named if self._watched is not None else {}

    @property
    def changes(self) -> Sequence[Change]:
        """Parameters that came or went while training."""
        return self._watched.changes if self._watched is not None else ()

    @property
    def has_stepped(self) -> bool:
        """Whether a step was seen."""
        return bool(self._rates)

    def sources(self) -> list[DecaySource]:
        """Return everything that decays the parameters, as it was in the last step."""
        return sources(self._optimizer, self._rates, list(self.parameters.values()), self._elapsed, self._check)

    def due(self, step: int) -> bool:
        """Whether ``step`` is recorded."""
        return bool(self.parameters) and step % self.every == 0

    def before_step(self, step: int) -> None:
        """Call right before the optimizer steps.

        Args:
            step: Index of this step, counted by the caller.
        """
        if self._watched is None or self._captured():
            return
        due = step % self.every == 0
        if self._watched.look(step, thoroughly=due):
            self._elapsed.follow(self._watched.named)
            self._reader.look()
            if self._microbatches is not None:
                self._microbatches.disarm()
                self._microbatches = MicrobatchHooks(self._watched.named)
        elif due:
            self._reader.look()
        parameters = self._watched.named
        if not parameters:
            return
        self._rates = self._check.corrected(read_rates(self._optimizer, self._reader))
        self._ready, self._stepped = step, False
        self._had_gradients = any(p.grad is not None for p in parameters.values())
        self._previous = None
        if due:
            self._check.before(self._rates)
            if "previous" in self._needs:
                self._previous = {name: p.detach().clone() for name, p in parameters.items()}

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
        due, decay = self.due(step), None
        if due:
            parameters = list(self.parameters.values())
            self._rates = self._check.after(self._rates, parameters, self._guest)
            families = [self._reader.family(i) for i in range(len(self._rates))]
            decay = self._check.measured(self._rates, parameters, families)
            if decay is not None:
                self._elapsed.hold(decay.long_run)
        decays = (decay for group in self._rates for decay in group.decays)
        self._elapsed.count(decays, getattr(self._optimizer, "found_inf", None), self._had_gradients)
        measured = None
        if due:
            measured = self._measure(step, decay)
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
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._microbatches is not None:
            self._microbatches.disarm()

    def _note_step(self, *_: Any) -> None:
        self._stepped = True

    @torch.no_grad()
    def _measure(self, step: int, decay: MeasuredDecay | None) -> dict[str, float]:
        context = self._context(step, decay)
        values: Measurement = {}
        for probe in self.probes:
            found = self._guarded(f"the probe {probe.name!r}", probe.measure, context)
            values |= found or {}
        return to_floats(values)

    def _context(self, step: int, decay: MeasuredDecay | None) -> Context:
        named = self.parameters
        device = next(iter(named.values())).device
        rates = spread(
            self._optimizer, self._rates, named.values(), device, accurate(device), self._elapsed, decay
        )  # fmt: skip
        return Context(
            step=step,
            model=self._model,
            parameters={name: p.detach() for name, p in named.items()},
            roles=self._watched.roles if self._watched is not None else {},
            gradients={name: entries(p.grad) for name, p in named.items() if p.grad is not None},
            previous=self._previous,
            optimizer=self._optimizer,
            rates=rates,
            microbatches=self._microbatches.seen() if self._microbatches is not None else None,
            loss_fn=self._loss_fn,
            batches=self._batches,
        )
