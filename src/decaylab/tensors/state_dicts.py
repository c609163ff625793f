"""State dicts as other programs save them, matched to the names of a model: containers, wrappers' prefixes, ties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from decaylab.errors import DecaylabError, shown

# Where training programs keep the weights among other things: Lightning, torch's tutorials, DeepSpeed, timm, ours.
_CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "weights")
# What torch.compile puts before a module's names, at any depth.
_COMPILED = "_orig_mod."
_NESTED = 4


def weights_inside(content: Any, origin: str) -> dict[str, Tensor]:
    """Return the tensors by name in what a file held: a state dict, or a checkpoint with one inside.

    Args:
        content: The file's content.
        origin: Its name, for messages.

    Raises:
        DecaylabError: There is none.
    """
    for _ in range(_NESTED):
        if not isinstance(content, Mapping):
            break
        inner = next((content[name] for name in _CONTAINERS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            # A module's own extra state is no weight.
            named = {name: t for name, t in content.items() if not str(name).endswith("_extra_state")}
            if named and all(isinstance(n, str) and isinstance(t, Tensor) for n, t in named.items()):
                return named
            break
        content = inner
    raise DecaylabError(
        f"{origin} does not hold a state dict of tensors, by itself or as one of {', '.join(_CONTAINERS[:4])}"
    )


def match(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Return tensors under the names that a model keeps them by, each tied one once.

    Prefixes that all names share are taken off or put on (``module.`` of DataParallel, ``_orig_mod.`` of
    ``torch.compile``, ``model.`` or any other attribute of a Lightning module; what lies beside that attribute is left
    out). Of a tied tensor any of its names will do, and several where their values agree.

    Args:
        model: The model.
        tensors: By the names of the file.
        origin: The file's name, for messages.

    Raises:
        DecaylabError: A name is missing or unknown, two parts of the file fit, or tied names hold different values.
    """
    first: dict[int, str] = {}
    canonical: dict[str, str] = {}  # every name of the model, without wrappers' parts -> the name that is kept
    wrapper = _wrapper(model)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            canonical[_bare(name).removeprefix(wrapper)] = first.setdefault(id(tensor), name)
    bare = {_bare(name): tensor for name, tensor in tensors.items()}
    return _untied(canonical, _under_prefix(canonical, bare, origin), origin)


def _bare(name: str) -> str:
    return name.replace(_COMPILED, "")


def _wrapper(model: nn.Module) -> str:
    """Return the prefix that a wrapper around the model gives to all of its names."""
    prefix, inner = "", model
    while True:
        if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
            prefix, inner = f"{prefix}module.", inner.module
        elif isinstance(getattr(inner, "_orig_mod", None), nn.Module):
            inner = getattr(inner, "_orig_mod")  # noqa: B009  (mypy knows no such attribute)
        else:
            return prefix


def _under_prefix(canonical: Mapping[str, str], tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Return the tensors whose names are the model's behind some prefix, without it."""
    kept = set(canonical.values())

    def whole(prefix: str) -> bool:
        return {canonical[n.removeprefix(prefix)] for n in tensors if _known(canonical, n, prefix)} == kept

    if whole(""):
        strange = [name for name in tensors if name not in canonical]
        if strange:
            raise DecaylabError(
                f"{origin} has {shown(strange[0])}, which this model has not: it belongs to other settings"
            )
        return dict(tensors)
    ends = (name.removesuffix(own) for own in list(canonical)[:8] for name in tensors if name.endswith(f".{own}"))
    fitting = [prefix for prefix in dict.fromkeys(ends) if whole(prefix)]
    if len(fitting) > 1:
        raise DecaylabError(
            f"{origin} holds the weights of this model {len(fitting)} times, below "
            f"{' and '.join(shown(prefix) for prefix in fitting[:3])}: save the one that is meant by itself"
        )
    if not fitting:
        found = {canonical[name] for name in tensors if name in canonical}
        missing = next((name for name in canonical.values() if name not in found), "")
        strange_name = next((name for name in tensors if name not in canonical), None)
        also = f" and has {shown(strange_name)} instead" if strange_name is not None else ""
        raise DecaylabError(f"{origin} has no {shown(missing)}{also}: it belongs to a model with other settings")
    prefix = fitting[0]
    strange = [n for n in tensors if n.startswith(prefix) and n.removeprefix(prefix) not in canonical]
    if strange:
        raise DecaylabError(f"{origin} has {shown(strange[0])}, which this model has not: it belongs to other settings")
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _known(canonical: Mapping[str, str], name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name.removeprefix(prefix) in canonical


def _untied(canonical: Mapping[str, str], tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    for name, tensor in tensors.items():
        kept = canonical[name]
        if kept in result and not _equal(result[kept], tensor):
            raise DecaylabError(
                f"{origin} has different values for {shown(names[kept])} and {shown(name)}, which this model ties: it "
                "belongs to a model with other settings"
            )
        result.setdefault(kept, tensor)
        names.setdefault(kept, name)
    return result


def _equal(a: Tensor, b: Tensor) -> bool:
    same = a.shape == b.shape and a.dtype == b.dtype
    return same and (a.data_ptr() == b.data_ptr() or bool(torch.equal(a, b)))
