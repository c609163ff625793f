"""How does a rule's state travel in the optimizer's own ``state_dict``?

Under names that begin with ``decaylab/``: tensors beside the optimizer's state of the same parameter (so that sharded
checkpoints treat them alike), numbers beside the settings of the group. They are put in when the dictionary is made and
taken out before it is loaded, so the live optimizer never holds a key that it does not know.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from decaylab.decay.install import Handle

PREFIX = "decaylab/"


class Checkpoint:
    """Saves and loads the state of one handle with the optimizer's."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._prefix = f"{PREFIX}{handle.slot}/"

    def register(self, optimizer: Optimizer) -> list[Any]:
        """Hook into ``state_dict`` and ``load_state_dict``; returns the removable hooks."""
        return [
            optimizer.register_state_dict_pre_hook(self._settle),
            optimizer.register_state_dict_post_hook(self._save),
            # First attached, first asked: each takes out its own keys.
            optimizer.register_load_state_dict_pre_hook(self._load),
        ]

    def _settle(self, optimizer: Optimizer) -> None:
        self._handle._give_back()  # a step that was left by an exception must not leave its decay in the file

    def _save(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        handle = self._handle
        states = dict(state_dict["state"])
        groups = []
        for index, (live, packed) in enumerate(zip(optimizer.param_groups, state_dict["param_groups"], strict=True)):
            packed = dict(packed)
            if any(handle.covers(live, p) for p in live["params"]):
                packed[self._prefix + "steps"] = handle.steps
                packed[self._prefix + "max_lr"] = handle._max_lr[index]
                packed.update({self._prefix + name: value for name, value in handle._shared.items()})
            groups.append(packed)
            for p, number in zip(live["params"], packed["params"], strict=True):
                kept = handle._state.get(p)
                if kept:
                    named = {self._prefix + name: value for name, value in kept.items()}
                    states[number] = {**states.get(number, {}), **named}
        return {**state_dict, "state": states, "param_groups": groups}

    def _load(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        handle = self._handle
        found = False
        states = dict(state_dict["state"])
        groups = []
        for index, (live, packed) in enumerate(zip(optimizer.param_groups, state_dict["param_groups"], strict=False)):
            own = {k.removeprefix(self._prefix): v for k, v in packed.items() if k.startswith(self._prefix)}
            groups.append({k: v for k, v in packed.items() if not k.startswith(self._prefix)})
            if own:
                found = True
                handle.steps = int(own.pop("steps"))
                handle._max_lr[index] = float(own.pop("max_lr"))
                handle._shared.update({name: float(value) for name, value in own.items()})
            for p, number in zip(live["params"], packed["params"], strict=False):
                self._load_param(p, states, number)
        if not found:
            warnings.warn(
                f"this optimizer state holds nothing of the attached rule {type(handle.rule).__name__}: it starts "
                f"from the current weights and from step 0",
                stacklevel=4,
            )
        return {**state_dict, "state": states, "param_groups": [*groups, *state_dict["param_groups"][len(groups) :]]}

    def _load_param(self, p: Tensor, states: dict[Any, Any], number: Any) -> None:
        entry = states.get(number)
        if not isinstance(entry, dict) or not any(str(key).startswith(self._prefix) for key in entry):
            return
        rest = {key: value for key, value in entry.items() if not str(key).startswith(self._prefix)}
        if rest:
            states[number] = rest
        else:
            # An optimizer that starts its state lazily looks whether there is any.
            del states[number]
        kept = self._handle._state.setdefault(p, {})
        for key, value in entry.items():
            if str(key).startswith(self._prefix):
                kept[str(key).removeprefix(self._prefix)] = _copy_to(p, value)


def _copy_to(p: Tensor, value: Any) -> Any:
    """Copy a tensor to the parameter's device in its own dtype: norms of bfloat16 weights are float32."""
    return value.detach().clone().to(device=p.device) if isinstance(value, torch.Tensor) else value
