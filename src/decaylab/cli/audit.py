"""``decaylab audit``: every parameter of a model, its role, and whether and why it decays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, cast

import tyro

from decaylab.cli.json_output import print_json
from decaylab.cli.target import built
from decaylab.errors import DecaylabError, printable, unknown


def audit(
    model: Annotated[str | None, tyro.conf.Positional] = None,
    /,
    *,
    load: str | None = None,
    decay: tuple[str, ...] = ("matrix", "embedding"),
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    roles: tuple[str, ...] = (),
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """List every parameter of a model: its role, its shape, whether it decays and why.

    Args:
        model: One of the networks here: gpt2, vgg16, vgg16_bn, vgg_small, resnet18, resnet34, resnet_small.
        load: Your own, as package.module:name: a model, or a function without arguments that returns a model or a pair
            (model, optimizer), or several optimizers: (model, [muon, adamw]). With them the table shows what really
            decays, by which of them or by which attached rule.
        decay: Roles that decay; matrix covers the head.
        include: Decay these also: roles, parts of parameter names, or patterns with an asterisk.
        exclude: Never decay these.
        roles: Roles given by hand, as name=role; the name may be a pattern.
        json: Print JSON instead of a table.
    """
    from decaylab.params import audit as audit_parameters

    if (model is None) == (load is None):
        raise DecaylabError(f"name a network ({', '.join(_NETWORKS)}) or give --load package.module:function")
    network, optimizer = _network(model) if model is not None else _loaded(cast("str", load))
    table = audit_parameters(
        network,
        optimizer,
        decay=cast("Any", decay),
        include=include,
        exclude=exclude,
        roles=cast("Any", dict(_pair(text) for text in roles)),
    )
    if json:
        print_json("audit", {"parameters": table.to_dicts()})
    else:
        print(printable(str(table)))


def _pair(text: str) -> tuple[str, str]:
    name, sign, role = text.partition("=")
    if not sign:
        raise DecaylabError(f"--roles {text!r} is not of the form name=role")
    return name, role


def _loaded(target: str) -> tuple[Any, Any]:
    from torch import nn

    from decaylab.params.acting_decay import optimizers_of

    found = built(target)
    model, *optimizers = found if isinstance(found, (tuple, list)) and found else (found,)
    if not isinstance(model, nn.Module):
        raise DecaylabError(f"{target} gave {type(found).__name__}: a model or (model, optimizer) is needed")
    given = optimizers[0] if len(optimizers) == 1 else optimizers or None
    return model, optimizers_of(given) or None


def _gpt2() -> Any:
    from decaylab import models

    return models.GPT(vocab_size=50257, context=1024, num_layers=12, num_heads=12, width=768)


def _vision(name: str, *arguments: Any, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        from decaylab import models

        return getattr(models, name)(*arguments, **options)

    return build


_NETWORKS: dict[str, Callable[[], Any]] = {
    "gpt2": _gpt2,
    "vgg16": _vision("vgg16"),
    "vgg16_bn": _vision("vgg16", batch_norm=True),
    "vgg_small": _vision("vgg_small"),
    "resnet18": _vision("preact_resnet", 18),
    "resnet34": _vision("preact_resnet", 34),
    "resnet_small": _vision("preact_resnet", "small", in_channels=1, width=8),
}


def _network(name: str) -> tuple[Any, None]:
    import torch

    if name not in _NETWORKS:
        raise unknown("network", name, _NETWORKS)
    with torch.device("meta"):  # roles need shapes alone: no memory, no initial values
        return _NETWORKS[name](), None
