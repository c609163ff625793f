"""Optimizers: one row for each, with the settings it has, how it is made and what it keeps of each weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from decaylab.components.lookup import Builder, built, find, first_line, fitting, index, parameters
from decaylab.errors import DecaylabError

SOME_HAVE = ("momentum", "dampening", "betas", "eps")
"""Settings that only some optimizers have."""


@dataclass(frozen=True, kw_only=True)
class OptimizerRow:
    """What there is to know of an optimizer.

    Attributes:
        name: Its name in configurations.
        help: What it is, one line.
        build: Makes it: called with ``(settings, groups, fused)``, returns a ``torch.optim.Optimizer`` whose own weight
            decay is 0.
        settings: Which of ``momentum``, ``dampening``, ``betas`` and ``eps`` it has.
        state_per_weight: Numbers that it keeps of each weight, from its settings.
        bounded_step: Whether the size of a step does not grow with the gradient's, as in Adam: then the product of
            learning rate and an L2 penalty does not tell which share of a weight a step takes.
        check: Returns what is wrong with its settings in one line, or None.
        takes_options: Whether it has settings beyond these, given as ``options``.
    """

    name: str
    help: str
    build: Builder
    settings: tuple[str, ...] = ()
    state_per_weight: Callable[[Any], int] = lambda settings: 0
    bounded_step: bool = True
    check: Callable[[Any], str | None] = lambda settings: None
    takes_options: bool = False

    def make(self, settings: Any, groups: Sequence[dict[str, Any]], *, fused: bool = False) -> Any:
        """Make the optimizer; this imports torch.

        Args:
            settings: The optimizer's settings, `decaylab.config.Optimizer`.
            groups: Parameter groups.
            fused: Whether its step may be one fused kernel.
        """
        return built(self.build)(settings, groups, fused)


def _sgd_state(settings: Any) -> int:
    return 1 if settings.momentum else 0


def _sgd_check(settings: Any) -> str | None:
    if settings.dampening and not settings.momentum:
        return "optimizer.dampening acts on the momentum, which is 0: set it to 0.0, or set momentum"
    return None


OPTIMIZERS: dict[str, OptimizerRow] = index(
    (
        OptimizerRow(
            name="sgd",
            help="gradient descent, with momentum if set",
            build="decaylab.train.optimizers:sgd",
            settings=("momentum", "dampening"),
            state_per_weight=_sgd_state,
            bounded_step=False,
            check=_sgd_check,
        ),
        OptimizerRow(
            name="adamw",
            help="Adam's step; the decay comes from the decay rule",
            build="decaylab.train.optimizers:adamw",
            settings=("betas", "eps"),
            state_per_weight=lambda settings: 2,
        ),
        OptimizerRow(
            name="signsgd",
            help="the sign of the gradient, or of its momentum",
            build="decaylab.train.optimizers:signsgd",
            settings=("momentum",),
            state_per_weight=_sgd_state,
        ),
    )
)


def optimizer(name: str) -> OptimizerRow:
    """Return the row of an optimizer.

    Args:
        name: A name in `OPTIMIZERS`, that of a plugin (entry point ``optimizer.NAME``), or a reference such as
            ``torch.optim:NAdam``: a row, or a class or function that takes parameter groups and ``lr``.

    Raises:
        DecaylabError: There is none of that name.
    """
    return find("optimizer", name, OPTIMIZERS, _adopt)


def _adopt(name: str, found: Any) -> OptimizerRow:
    if isinstance(found, OptimizerRow):
        return dataclasses.replace(found, name=name)
    if not callable(found):
        raise DecaylabError(f"{name} is no optimizer: expected a class or function that takes parameter groups and lr")

    named, _ = parameters(found)

    def build(settings: Any, groups: Sequence[dict[str, Any]], fused: bool) -> Any:
        facts = {key: getattr(settings, key) for key in ("lr", *SOME_HAVE)} | {"weight_decay": 0.0}
        return fitting(found, name, facts, settings.options, first=(groups,))

    return OptimizerRow(
        name=name,
        help=first_line(found),
        build=build,
        settings=tuple(key for key in SOME_HAVE if key in named),
        takes_options=True,
    )
