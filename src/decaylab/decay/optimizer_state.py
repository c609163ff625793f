"""A rule's state in the optimizer's own ``state_dict``.

Under names that begin with ``decaylab/``: tensors beside the optimizer's state of the same parameter (so that sharded
checkpoints treat them alike), numbers beside the settings of the group and, since some formats keep only what belongs
to a parameter, beside the state of the parameter too. They are put in when the dictionary is made and taken out before
it is loaded. What was loaded before the rule was attached stays in the optimizer under these names until attaching
takes it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from decaylab.decay.binding import Members
from decaylab.decay.state_values import pack, unpack
from decaylab.params.marks import group_mark

PREFIX = "decaylab/"
_LACKS = "this optimizer state holds nothing of the attached rule"
_GROUP = "group/"
_NOT_YET = -1  # in the live optimizer: a name whose value is put in when a state is saved


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


class Checkpoint:
    """Saves and loads the state of one attached rule with the optimizer's.

    Args:
        members: The rule's parameters and what it keeps.
        slot: A name that no other rule of the optimizer has.
        give_back: Undoes what a step that was left by an exception has not undone.
        optimizer: The optimizer whose step the rule acts in.

    Attributes:
        restored: Whether a state was found that the rule goes on from.
    """

    def __init__(self, members: Members, slot: str, give_back: Callable[[], None], optimizer: Optimizer) -> None:
        self.restored = False
        self._members, self._prefix = members, f"{PREFIX}{slot}/"
        self._give_back, self._optimizer = give_back, optimizer
        self._shown_at = -1

    @property
    def rule_name(self) -> str:
        """The rule's class."""
        return type(self._members.rule).__name__

    def register_saving(self, optimizer: Optimizer) -> list[Any]:
        """Hook into ``state_dict``; returns the removable hooks."""
        return [
            optimizer.register_state_dict_pre_hook(self._settle),
            optimizer.register_state_dict_post_hook(self._save),
        ]

    def register_loading(self, optimizer: Optimizer) -> list[Any]:
        """Hook into ``load_state_dict``; returns the removable hooks. First attached, first asked for its own keys."""
        return [optimizer.register_load_state_dict_pre_hook(self._load)]

    def absorb(self) -> None:
        """Take over what a state that was loaded before attaching left in the live optimizer."""
        states, found = self._optimizer.state, False
        for index, group in enumerate(self._optimizer.param_groups):
            numbers = self._pop(group)
            for p in group["params"]:
                entry = states.get(p)
                if isinstance(entry, dict):
                    numbers = self._restore_param(p, self._pop(entry)) or numbers
                    if not entry:
                        del states[p]  # an optimizer that starts its state lazily looks whether there is any
            found = self._restore_group(index, numbers) or found
        self.restored = found

    def carry(self, groups: Iterable[dict[str, Any]], states: dict[Tensor, dict[str, Any]]) -> None:
        """Write the rule's state into copies of an optimizer's groups and states, as a loaded state would."""
        self._settle(self._optimizer)
        for index, group in enumerate(groups):
            if any(self._members.covers(group, p) for p in group["params"]):
                group.update(self._numbers(index, ""))
            for p in group["params"]:
                own = self._of_param(index, p, states.get(p, {}))
                if own:
                    states[p] = {**states.get(p, {}), **own}

    def show(self, compiled: bool) -> None:
        """Put the names of what is saved for a parameter into the live optimizer's state, without their values.

        ``torch.distributed.checkpoint`` with a flattened state asks the live optimizer which names to load. Only for
        programs that use it, not in compiled steps, whose guards would see it, and never as the first entry of a state
        that the optimizer still has to create.
        """
        states = self._optimizer.state
        if compiled or len(states) == self._shown_at or "torch.distributed.checkpoint.state_dict" not in sys.modules:
            return
        for index, group in enumerate(self._optimizer.param_groups):
            for p in group["params"]:
                if p.grad is None and not states.get(p):
                    continue
                names = self._of_param(index, p, states.get(p, {}), values=False)
                if names:
                    states[p].update({name: _NOT_YET for name in names if name not in states[p]})
        self._shown_at = len(states)

    def hide(self) -> None:
        """Take the names out of the live optimizer again."""
        for p in tuple(self._optimizer.state):
            entry = self._optimizer.state[p]
            if isinstance(entry, dict) and self._pop(entry) and not entry:
                del self._optimizer.state[p]

    def _settle(self, optimizer: Optimizer) -> None:
        self._give_back()  # a step that was left by an exception must not leave its decay in the file
        self._members.look()

    def _save(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        states = dict(state_dict["state"])
        groups = []
        for index, (live, packed) in enumerate(zip(optimizer.param_groups, state_dict["param_groups"], strict=True)):
            covered = any(self._members.covers(live, p) for p in live["params"])
            groups.append({**packed, **(self._numbers(index, "") if covered else {})})
            for p, number in zip(live["params"], packed["params"], strict=True):
                own = self._of_param(index, p, states.get(number, {}))
                if own:
                    states[number] = {**states.get(number, {}), **own}
        return {**state_dict, "state": states, "param_groups": groups}

    def _numbers(self, index: int, place: str) -> dict[str, Any]:
        members = self._members
        numbers = {"steps": members.steps, "max_lr": members.peaks[index], **members.shared}
        return {f"{self._prefix}{place}{name}": value for name, value in numbers.items()}

    def _of_param(self, index: int, p: Tensor, entry: Any, values: bool = True) -> dict[str, Any]:
        """What goes beside the state ``entry`` of a parameter; without ``values`` the names are enough."""
        if not isinstance(entry, dict):
            return {}
        kept = self._members.state.get(p)
        bare = self._stateless and not any(not str(key).startswith(PREFIX) for key in entry)
        if kept is None:
            # torch.distributed.checkpoint wants a state for every parameter, or for none.
            return {f"{self._prefix}{_GROUP}steps": self._members.steps} if bare else {}
        own = {f"{self._prefix}{key}": value for name, item in kept.items() for key, value in [pack(name, item, p)]}
        # Most optimizers create the state of a parameter where it has none yet, so an empty one stays empty.
        if bare or any(not str(key).startswith(PREFIX) for key in entry):
            return {**own, **self._numbers(index, _GROUP)}
        return own if values else {}

    @property
    def _stateless(self) -> bool:
        """Whether the optimizer keeps no state, or does not look whether there is one before it makes it."""
        if type(self._optimizer) is torch.optim.SGD:
            return True
        entries = (entry for entry in self._optimizer.state.values() if isinstance(entry, dict))
        return self._members.steps > 0 and not any(
            not str(key).startswith(PREFIX) for entry in entries for key in entry
        )

    def _load(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        found = False
        states = dict(state_dict["state"])
        groups = []
        for index, (live, packed) in enumerate(zip(optimizer.param_groups, state_dict["param_groups"], strict=False)):
            packed = self._keep_membership(index, live, packed)
            numbers = self._pop(packed)
            groups.append(packed)
            for p, number in zip(live["params"], packed["params"], strict=False):
                entry = states.get(number)
                if not isinstance(entry, dict) or not any(str(key).startswith(self._prefix) for key in entry):
                    continue
                rest = dict(entry)
                numbers = self._restore_param(p, self._pop(rest)) or numbers
                if rest:
                    states[number] = rest
                else:
                    del states[number]
            found = self._restore_group(index, numbers) or found
        self.restored, self._shown_at = found, -1
        if not found:
            warnings.warn(
                f"{_LACKS} {self.rule_name}: it goes on from the current weights and from step {self._members.steps}",
                stacklevel=4,
            )
        return {**state_dict, "state": states, "param_groups": [*groups, *state_dict["param_groups"][len(groups) :]]}

    def _keep_membership(self, index: int, live: dict[str, Any], packed: dict[str, Any]) -> dict[str, Any]:
        """Return a saved group as it may be loaded: who decays, and by whom, is this program's affair."""
        packed, mark = dict(packed), group_mark(live)
        if mark is not None:
            packed["decay"] = mark
        elif group_mark(packed) is not None:
            del packed["decay"]
        covered = self._members.rule.decays and any(self._members.covers(live, p) for p in live["params"])
        own, saved = live.get("weight_decay"), packed.get("weight_decay")
        if (covered or mark is False) and _is_zero(own) and saved is not None and not _is_zero(saved):
            packed["weight_decay"] = own
            words = f"{self.rule_name} decays" if covered else "does not decay"
            warnings.warn(
                f"the loaded optimizer state has weight_decay={float(saved):g} in group {index}, which {words} here: "
                f"it stays 0",
                stacklevel=5,
            )
        return packed

    def _pop(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Take the rule's keys out of a dictionary; returns them without the prefix."""
        names = [key for key in entry if str(key).startswith(self._prefix)]
        return {name.removeprefix(self._prefix): entry.pop(name) for name in names}

    def _restore_param(self, p: Tensor, own: dict[str, Any]) -> dict[str, Any]:
        """Take over what was kept for a parameter; returns the numbers of its group among them."""
        numbers = {name.removeprefix(_GROUP): value for name, value in own.items() if name.startswith(_GROUP)}
        kept = self._members.state.setdefault(p, {}) if any(not name.startswith(_GROUP) for name in own) else {}
        for name, value in own.items():
            if not name.startswith(_GROUP) and isinstance(value, Tensor):
                key, tensor = unpack(name, value, p, kept)
                kept[key] = tensor
        return {name: value for name, value in numbers.items() if isinstance(value, (int, float, Tensor))}

    def _restore_group(self, index: int, numbers: dict[str, Any]) -> bool:
        """Take over the numbers of a group; whether there were any."""
        numbers = dict(numbers)
        steps = numbers.pop("steps", None)
        if steps is None or int(steps) == _NOT_YET:
            return False
        self._members.steps = int(steps)
        if "max_lr" in numbers:
            self._members.peaks[index] = float(numbers.pop("max_lr"))
        self._members.shared.update({name: float(value) for name, value in numbers.items()})
        return True


def _without(entry: Any, prefix: str) -> Any:
    """Leave out the keys with a prefix; an entry may be something else than a dictionary."""
    return {k: v for k, v in entry.items() if not str(k).startswith(prefix)} if isinstance(entry, dict) else entry


def _is_zero(value: Any) -> bool:
    return not isinstance(value, Tensor) and value is not None and value == 0
