"""Parameters that are watched: the trainable ones of the model that the optimizer holds, as they come and go."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from decaylab.errors import DecaylabError
from decaylab.params.role import UNKNOWN, assign


@dataclass(frozen=True)
class Change:
    """Parameters that came or went while training.

    Attributes:
        step: Index of the first step with them.
        added: Names of those that became trainable, were added, or took the place of another tensor.
        removed: Names of those that were frozen, taken from the optimizer or replaced.
    """

    step: int
    added: tuple[str, ...]
    removed: tuple[str, ...]


def reading_roles(model: nn.Module, overrides: Mapping[str, Any] | None) -> dict[str, str]:
    """Map parameters to roles for somebody who only reads: one that no rule knows is ``"unknown"``.

    Args:
        model: The model.
        overrides: Overrides of roles.
    """
    return {item.name: item.role for item in assign(model, overrides)}


def warn_of_unknown(roles: Mapping[str, str], stacklevel: int) -> None:
    """Warn, once for all of them, of parameters whose role is unknown.

    Args:
        roles: Name to role.
        stacklevel: As in `warnings.warn`.
    """
    names = [name for name, role in roles.items() if role == UNKNOWN]
    if names:
        rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
        warnings.warn(
            f"no role is known for {', '.join(names[:3])}{rest}, shown under the role {UNKNOWN!r}: say what it is, as"
            f' in roles={{"{names[0]}": "matrix"}}',
            stacklevel=stacklevel,
        )


class WatchedParameters:
    """The trainable parameters of a model that an optimizer holds, by name, with their roles.

    Args:
        model: The model, unwrapped.
        optimizer: The optimizer.
        roles: Overrides of roles.

    Attributes:
        named: Name to parameter.
        roles: Name to role; ``"unknown"`` where no rule knows one.
        changes: What came and went since.

    Raises:
        DecaylabError: The optimizer holds none of the model's trainable parameters.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, roles: Mapping[str, Any] | None) -> None:
        self._model, self._optimizer, self._overrides = model, optimizer, roles
        self.changes: list[Change] = []
        self._all_roles = reading_roles(model, roles)
        warn_of_unknown(self._all_roles, stacklevel=5)
        self._held = self._snapshot()
        self.named = self._find()
        trainable = any(p.requires_grad for p in model.parameters())
        if trainable and not self.named:
            raise DecaylabError(
                "the optimizer holds none of the model's trainable parameters: give the optimizer that was made from"
                " this model's parameters()"
            )
        self.roles = {name: self._all_roles[name] for name in self.named}

    def look(self, step: int, thoroughly: bool = False) -> bool:
        """Look whether parameters have come, gone or been replaced.

        Args:
            step: Index of the step at hand.
            thoroughly: Also whether the model has other tensors; without that only the optimizer is looked at, which
                is quick enough for every step.

        Returns:
            Whether they have; `named` and `roles` are then the new ones.
        """
        if not thoroughly and self._is_as_before():
            return False
        self._held = self._snapshot()
        named = self._find()
        before = self.named
        if named.keys() == before.keys() and all(named[name] is before[name] for name in named):
            return False
        added = tuple(name for name, p in named.items() if before.get(name) is not p)
        removed = tuple(name for name, p in before.items() if named.get(name) is not p)
        self.changes.append(Change(step, added, removed))
        if not named.keys() <= self._all_roles.keys():
            self._all_roles = reading_roles(self._model, self._overrides)
        self.named = named
        self.roles = {name: self._all_roles.get(name, UNKNOWN) for name in named}
        return True

    def _is_as_before(self) -> bool:
        """Whether the optimizer holds the same tensors, and none of the frozen ones is trained now."""
        now: list[int] = []
        for group in self._optimizer.param_groups:
            now.extend(map(id, group["params"]))
        return now == self._ids and not any(p.requires_grad for p in self._frozen)

    def _snapshot(self) -> set[int]:
        held = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._ids = [id(p) for p in held]
        self._frozen = [p for p in held if not p.requires_grad]
        return {id(p) for p in held if p.requires_grad}

    def _find(self) -> dict[str, Tensor]:
        return {name: p for name, p in self._model.named_parameters() if id(p) in self._held}
