"""What the ``weight_decay`` of an optimizer that somebody has already made does, measured on a private copy of it.

The copy is of the same class with the same settings and holds one small matrix of its own; the optimizer in use is only
read. A class with the same settings is measured once.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from decaylab.conformance.context import Context
from decaylab.conformance.entry import KINDS, NONE
from decaylab.conformance.meaning import MEANINGS, Moment
from decaylab.conformance.reference import Constants, trajectory
from decaylab.conformance.report import measure
from decaylab.conformance.subject import MULTIPLIERS, Subject, difference, draws
from decaylab.conventions import step_decay

_CHOSEN_HERE = ("lr", "weight_decay", "max_lr")
_FAMILIES = {"sgd": "sgd", "adam": "adamw", "adam_eps_before": "adamw", "lion": "lion"}
# Meanings whose share follows from learning rates and lambda alone.
_KNOWN = frozenset(MEANINGS) - {"stable", "rms"}
_CACHE: dict[Any, OwnDecay] = {}
_KEPT = 256


@dataclass(frozen=True, kw_only=True)
class OwnDecay:
    """What an optimizer's own coefficient does.

    Attributes:
        kind: Where it enters: a key of `KINDS`, or ``"unmeasured"``.
        meaning: Key of `MEANINGS` or `OTHER_MEANINGS`; None where nothing fits.
        key: Name under which param groups hold the coefficient; empty where they do not.
        peak: Name under which param groups hold the learning rate that it is divided by; empty for the constructor's.
        family: Method whose updates these are, ``"adamw"``, ``"sgd"`` or ``"lion"``; None for another.
        reason: Why nothing could be measured, or what was found, in words.
    """

    kind: str
    meaning: str | None = None
    key: str = "weight_decay"
    peak: str = ""
    family: str | None = None
    reason: str = ""

    @property
    def coupled(self) -> bool:
        """Whether lambda w is added to the gradient."""
        return self.kind == "l2"

    def share(self, lr: Any, weight_decay: Any, lr_first: float, lr_seen: Any, group: Mapping[str, Any]) -> Any:
        """Return the share of the weight that a step removes beside the update; NaN where no number is known before it.

        Args:
            lr: Learning rate of the step.
            weight_decay: Lambda.
            lr_first: Learning rate of the constructor.
            lr_seen: Largest learning rate of the group so far.
            group: The param group.
        """
        if self.meaning == "torch" and self.kind in ("before", "after"):  # nearly always, and asked at every step
            return step_decay.decoupled(lr, weight_decay)
        if self.kind not in ("before", "after") or self.meaning not in _KNOWN:
            return math.nan
        constants = Constants.of(group)
        at = Moment(
            lr=lr, lr_first=lr_first, lr_seen=lr_seen, weight_decay=weight_decay, weight=torch.ones(1), gradients=(),
            momentum=constants.momentum, dampening=constants.dampening,
        )  # fmt: skip
        return MEANINGS[str(self.meaning)].share(at)


def own_decay(optimizer: Optimizer, group: Mapping[str, Any]) -> OwnDecay:
    """Measure what an optimizer's own decay does to a param group.

    Args:
        optimizer: Any optimizer; it is only read.
        group: One of its param groups.

    Returns:
        What was found; kind ``"unmeasured"`` with the reason where a copy cannot be made or stepped.
    """
    settings = settings_of(optimizer, group)
    known = (type(optimizer), _frozen(settings), _frozen(_flags(optimizer)))
    if known not in _CACHE:
        if len(_CACHE) >= _KEPT:
            _CACHE.clear()
        _CACHE[known] = _measured(optimizer, settings)
    return _CACHE[known]


def copy_of(optimizer: Optimizer, settings: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a factory of optimizers of the same class with the same settings, for other parameters.

    Args:
        optimizer: The optimizer; it is only read.
        settings: What `settings_of` found.

    Returns:
        Called as ``factory(params, lr=..., weight_decay=...)``.
    """
    kind, flags = type(optimizer), _flags(optimizer)

    def make(params: Any, lr: float, weight_decay: float, **options: Any) -> Any:
        made: Any = kind(params, lr=lr, weight_decay=weight_decay, **{**settings, **options})  # type: ignore[call-arg]
        for name, value in flags.items():
            if name in made.__dict__:
                made.__dict__[name] = value
        return made

    return make


def _measured(optimizer: Optimizer, settings: dict[str, Any]) -> OwnDecay:
    subject = Subject(copy_of(optimizer, settings), type(optimizer).__name__)
    try:
        with unseen():
            context = measure(subject)
            key = _held_as(subject)
            family = _family(context)
    except Exception as error:  # a foreign class may raise anything; the training that is watched goes on
        return OwnDecay(kind="unmeasured", reason=" ".join(str(error).split())[:200])
    peak = "max_lr" if Subject(type(optimizer), subject.name).accepts("max_lr") else ""
    found = context.entry.kind
    return OwnDecay(kind=found, meaning=context.meaning, key=key, peak=peak, family=family, reason=KINDS[found])


def settings_of(optimizer: Optimizer, group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor's arguments, as far as the group or the optimizer holds them under the same names."""
    try:
        parameters = list(inspect.signature(type(optimizer).__init__).parameters.values())[2:]
    except (TypeError, ValueError):
        return {}
    found = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.name in _CHOSEN_HERE:
            continue
        for place in (group, optimizer.__dict__):
            if parameter.name in place and _is_plain(place[parameter.name]):
                found[parameter.name] = place[parameter.name]
                break
    return found


def _flags(optimizer: Optimizer) -> dict[str, Any]:
    """Switches that the constructor keeps on the optimizer under another name."""
    return {name: value for name, value in vars(optimizer).items() if isinstance(value, bool | str)}


def _is_plain(value: Any) -> bool:
    plain = bool | int | float | str | None
    return isinstance(value, plain) or (isinstance(value, tuple | list) and all(isinstance(x, plain) for x in value))


def _frozen(settings: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in settings.items()))


def _held_as(subject: Subject) -> str:
    """Find the key of the param group that holds lambda, by its value."""
    mark = 0.2125
    group = subject.build([torch.nn.Parameter(draws(1, seed=0)[0])], 0.05, mark).param_groups[0]
    return next((name for name, value in group.items() if isinstance(value, float) and value == mark), "")


def _family(context: Context) -> str | None:
    """Find the method whose trajectory without decay this is."""
    gradients, start = draws(len(MULTIPLIERS), seed=21), draws(1, seed=22)[0]
    own = context.subject.run(gradients, start=start, lr=0.05, weight_decay=NONE)
    for base, family in _FAMILIES.items():
        there = trajectory(base, context.constants, gradients, start=start, lr=0.05, multipliers=MULTIPLIERS)
        if max(difference(a, b) for a, b in zip(own, there, strict=True)) <= max(context.closeness, 1e-6):
            return family
    return None


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """Keep the caller's random state and terminal as they are: some constructors print, some methods draw."""
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        yield
