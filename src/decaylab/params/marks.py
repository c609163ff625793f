"""Marks of who decays: on param groups, where they are seen, and by parameter, where no checkpoint overwrites them.

A state that somebody else saved replaces the keys of param groups when it is loaded, and ``decay`` among them. So
`decaylab.params.decay_groups` also remembers the parameters themselves, in a table that keeps none of them alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_MARKS: Any = WeakIdKeyDictionary()


def mark(params: Iterable[Tensor], decays: bool) -> None:
    """Remember of parameters whether they decay; the last word counts."""
    for p in params:
        _MARKS[p] = decays


def marked(param: Tensor) -> bool | None:
    """Return what was remembered of a parameter, None where nothing was."""
    found: bool | None = _MARKS.get(param)
    return found


def group_mark(group: Mapping[str, Any]) -> bool | None:
    """Return the mark ``decay`` of a param group, None where it has none.

    Only True and False are marks: some optimizers have a number of that name, such as the decay of an average.
    """
    found = group.get("decay")
    return found if isinstance(found, bool) else None
