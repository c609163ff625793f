"""How does a rule's state travel in the optimizer's own ``state_dict``?

Under names that begin with ``decaylab/``: tensors beside the optimizer's state of the same parameter (so that sharded
checkpoints treat them alike), numbers beside the settings of the group. They are put in when the dictionary is made and
taken out before it is loaded, so the live optimizer never holds a key that it does not know.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.decay.binding import Members

PREFIX = "decaylab/"
_LACKS = "this optimizer state holds nothing of the attached rule"


def load_without_rules(state_dict: dict[str, Any], load: Callable[[dict[str, Any]], None]) -> None:
    """Load an optimizer's state without what rules kept in it: those of this optimizer start from where they are.

    Args:
        state_dict: What an optimizer's ``state_dict`` gave.
        load: Loads it, such as the ``load_state_dict`` of another optimizer.
    """
    states = {number: _without(entry, PREFIX) for number, entry in state_dict["state"].items()}
    groups = [_without(group, PREFIX) for group in state_dict["param_groups"]]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_LACKS)
        load({**state_dict, "state": {n: entry for n, entry in states.items() if entry}, "param_groups": groups})


def _without(entry: Any, prefix: str) -> Any:
    """Leave out the keys with a prefix; an entry may be something else than a dictionary."""
    return {k: v for k, v in entry.items() if not str(k).startswith(prefix)} if isinstance(entry, dict) else entry


class Checkpoint:
    """Saves and loads the state of one attached rule with the optimizer's.

    Args:
        members: The rule's parameters and what it keeps.
        slot: A name that no other rule of the optimizer has.
        give_back: Undoes what a step that was left by an exception has not undone.
    """

    def __init__(self, members: Members, slot: str, give_back: Callable[[], None]) -> None:
        self._members, self._prefix = members, f"{PREFIX}{slot}/"
        self._give_back = give_back

    def register(self, optimizer: Optimizer) -> list[Any]:
        """Hook into ``state_dict`` and ``load_state_dict``; returns the removable hooks."""
        return [
            optimizer.register_state_dict_pre_hook(self._settle),
            optimizer.register_state_dict_post_hook(self._save),
            # First attached, first asked: each takes out its own keys.
            optimizer.register_load_state_dict_pre_hook(self._load),
        ]

    def _settle(self, optimizer: Optimizer) -> None:
        self._give_back()  # a step that was left by an exception must not leave its decay in the file
        self._members.look()

    def _save(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        members = self._members
        states = dict(state_dict["state"])
        groups = []
        for index, (live, packed) in enumerate(zip(optimizer.param_groups, state_dict["param_groups"], strict=True)):
            packed = dict(packed)
            if any(members.covers(live, p) for p in live["params"]):
                packed[self._prefix + "steps"] = members.steps
                packed[self._prefix + "max_lr"] = members.max_lr[index]
                packed.update({self._prefix + name: value for name, value in members.shared.items()})
            groups.append(packed)
            for p, number in zip(live["params"], packed["params"], strict=True):
                kept = members.state.get(p)
                if kept:
                    named = {self._prefix + name: value for name, value in kept.items()}
                    states[number] = {**states.get(number, {}), **named}
        return {**state_dict, "state": states, "param_groups": groups}

    def _load(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        members = self._members
        found = False
        states = dict(state_dict["state"])
        groups = []
        for index, (live, packed) in enumerate(zip(optimizer.param_groups, state_dict["param_groups"], strict=False)):
            own = {k.removeprefix(self._prefix): v for k, v in packed.items() if k.startswith(self._prefix)}
            groups.append(_without(packed, self._prefix))
            if own:
                found = True
                members.steps = int(own.pop("steps"))
                members.max_lr[index] = float(own.pop("max_lr"))
                members.shared.update({name: float(value) for name, value in own.items()})
            for p, number in zip(live["params"], packed["params"], strict=False):
                self._load_param(p, states, number)
        if not found:
            warnings.warn(
                f"{_LACKS} {type(members.rule).__name__}: it starts from the current weights and from step 0",
                stacklevel=4,
            )
        return {**state_dict, "state": states, "param_groups": [*groups, *state_dict["param_groups"][len(groups) :]]}

    def _load_param(self, p: Tensor, states: dict[Any, Any], number: Any) -> None:
        entry = states.get(number)
        if not isinstance(entry, dict) or not any(str(key).startswith(self._prefix) for key in entry):
            return
        rest = _without(entry, self._prefix)
        if rest:
            states[number] = rest
        else:
            # An optimizer that starts its state lazily looks whether there is any.
            del states[number]
        kept = self._members.state.setdefault(p, {})
        for key, value in entry.items():
            if str(key).startswith(self._prefix):
                kept[str(key).removeprefix(self._prefix)] = _copy_to(p, value)


def _copy_to(p: Tensor, value: Any) -> Any:
    """Copy a tensor to the parameter's device in its own dtype: norms of bfloat16 weights are float32."""
    return value.detach().clone().to(device=p.device) if isinstance(value, torch.Tensor) else value
