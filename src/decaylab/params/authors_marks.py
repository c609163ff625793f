"""Marks by which a model's author says that a parameter must not decay."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator, Mapping

from torch import nn

_ATTRIBUTES = ("_no_weight_decay", "no_weight_decay")


def marked_by_author(model: nn.Module) -> dict[int, str]:
    """Find the parameters that their author marked as not to be decayed.

    Read are ``parameter._no_weight_decay`` (Mamba), ``parameter._optim["weight_decay"] == 0`` (S4), the method
    ``no_weight_decay()`` of any module (timm, BEiT, Swin: names or patterns, relative to that module) and
    ``no_weight_decay_keywords()`` (Swin), compared here with whole parts of the name.

    Args:
        model: Any module. Its ``no_weight_decay`` methods are called; one that raises says nothing.

    Returns:
        The parameter's ``id`` to the mark in words.
    """
    found: dict[int, str] = {}
    for parameter in model.parameters():
        options = getattr(parameter, "_optim", None)
        if any(getattr(parameter, name, False) is True for name in _ATTRIBUTES):
            found[id(parameter)] = "marked as not to decay by its author"
        elif isinstance(options, Mapping) and options.get("weight_decay", 1) == 0:
            found[id(parameter)] = "marked by its author with a weight decay of 0"
    for module in model.modules():
        patterns, parts = _listed(module, "no_weight_decay"), set(_listed(module, "no_weight_decay_keywords"))
        if not patterns and not parts:
            continue
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) or parts & set(name.split(".")):
                found.setdefault(id(parameter), f"listed in {type(module).__name__}.no_weight_decay()")
    return found


def _listed(module: nn.Module, method: str) -> Collection[str]:
    call = getattr(module, method, None)
    if not callable(call):
        return ()
    try:
        return [name for name in _names(call()) if isinstance(name, str)]
    except Exception:  # a stranger's method, which may want arguments or an attribute that is not there yet
        return ()


def _names(result: object) -> Iterator[object]:
    if isinstance(result, str):
        yield result
    elif isinstance(result, Collection):
        yield from result
