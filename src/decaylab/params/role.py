"""What is each parameter of a model: a matrix, an embedding, the head, a norm's, a bias or a scalar?

The answer comes from the module that owns the parameter, never from a substring of its name: a ``Linear`` owns a matrix
and a bias, a ``LayerNorm`` owns two norm parameters, whatever they are called in the model.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.utils import parametrize

from decaylab.errors import DecaylabError, unknown
from decaylab.params.head import find_head
from decaylab.params.owner import (
    EMBEDDING_OWNERS,
    ROLES,
    Role,
    class_name,
    hooked_weight_norm,
    is_weight_norm_gain,
    role_of,
)

__all__ = ["ROLES", "Assignment", "Role", "assign", "roles"]


@dataclass(frozen=True, eq=False)
class Assignment:
    """One parameter with its role and the reason for it.

    Attributes:
        name: Its first name in ``model.named_parameters()``.
        parameter: The tensor itself.
        role: One of `ROLES`.
        why: The reason in words, naming the owning module.
        aliases: Its other names where it is tied (shared by several modules); empty otherwise.
    """

    name: str
    parameter: nn.Parameter
    role: Role
    why: str
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of the parameter, the first one first."""
        return (self.name, *self.aliases)


@dataclass(frozen=True, eq=False)
class _Place:
    """One place in a model that holds a parameter."""

    name: str
    module: nn.Module
    attribute: str


def roles(model: nn.Module, roles: Mapping[str, Role] | None = None) -> dict[str, Role]:
    """Map the name of every parameter to its role; a tied parameter appears once, under its first name.

    ========= =====================================================================================================
    role      parameters
    ========= =====================================================================================================
    matrix    weights of Linear, convolutions, Bilinear, recurrent cells, attention projections (also transformers'
              ``Conv1D`` and the ``in_proj_weight`` of ``nn.MultiheadAttention``)
    embedding weights of Embedding and EmbeddingBag; positional embeddings and learned tokens, also where they are bare
              parameters; a head that is tied to an embedding
    head      the weight of the Linear whose output is the vocabulary or the classes (`find_head`)
    norm      weight and bias of BatchNorm, LayerNorm, GroupNorm, InstanceNorm, RMSNorm
    bias      biases of all other modules
    scalar    other multipliers: PReLU slopes, LayerScale, temperatures, the gain of weight norm
    ========= =====================================================================================================

    Args:
        model: Any module. Nothing is computed with it, so it may live on the meta device.
        roles: Overrides, for parameters that no rule knows or to correct a role: parameter name or glob pattern
            (``"blocks.*.gate"``) to role. An exact name wins over a pattern.

    Returns:
        Name to role, in the order of ``model.named_parameters()``.

    Raises:
        DecaylabError: A parameter has no role (named, with the override that mends it), an override matches nothing
            or names no role, or a lazy module has not seen its first batch.
    """
    return {item.name: item.role for item in assign(model, roles)}


def assign(model: nn.Module, roles: Mapping[str, Role] | None = None) -> list[Assignment]:
    """Give every parameter its role with the reason; see `roles` for the rules and the arguments."""
    places: dict[int, list[_Place]] = {}
    for place in _places(model):
        places.setdefault(id(place.module._parameters[place.attribute]), []).append(place)
    overrides = roles or {}
    _check_overrides(overrides, [place.name for group in places.values() for place in group])
    head = find_head(model)
    found: list[Assignment] = []
    missing: list[tuple[str, str]] = []
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise DecaylabError(f"parameter {name!r} has no shape yet: run one batch through the lazy modules first")
        here = places[id(parameter)]
        aliases = tuple(place.name for place in here if place.name != name)
        override = _override((name, *aliases), overrides)
        verdict = (override, "role given by the caller") if override else _decide(here, parameter, model, head)
        if verdict is None:
            missing.append((name, f"{name!r} ({class_name(here[0].module)}, shape {tuple(parameter.shape)})"))
            continue
        role, why = verdict
        if aliases:
            why += f"; tied with {', '.join(aliases)}"
        found.append(Assignment(name, parameter, role, why, aliases))
    if missing:
        raise _no_role(missing)
    return found


def _places(model: nn.Module) -> Iterator[_Place]:
    """Every place that holds a parameter, so a shared parameter comes several times."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                yield _Place(f"{prefix}.{attribute}" if prefix else attribute, module, attribute)


def _decide(
    places: list[_Place], parameter: nn.Parameter, model: nn.Module, head: nn.Module | None
) -> tuple[Role, str] | None:
    """The first known role among the parameter's places; an embedding wins, because ties go to the look-up."""
    verdicts = [verdict for place in places if (verdict := _at(place, parameter, model, head)) is not None]
    return next((verdict for verdict in verdicts if verdict[0] == "embedding"), verdicts[0] if verdicts else None)


def _at(place: _Place, parameter: nn.Parameter, model: nn.Module, head: nn.Module | None) -> tuple[Role, str] | None:
    module, attribute = place.module, place.attribute
    if isinstance(module, parametrize.ParametrizationList):
        # named "<module>.parametrizations.<tensor>.original", "...original0" and so on
        *outer, _, tensor, _ = place.name.split(".")
        if is_weight_norm_gain(module, attribute):
            return "scalar", f"gain of the weight-normed {tensor} of {class_name(model.get_submodule('.'.join(outer)))}"
        if len(module) != 1 and attribute != "original":
            return None
        module, attribute = model.get_submodule(".".join(outer)), tensor
    elif hooked := hooked_weight_norm(module, attribute):
        attribute, is_gain = hooked
        if is_gain:
            return "scalar", f"gain of the weight-normed {attribute} of {class_name(module)}"
    if module is head and attribute == "weight" and not isinstance(module, EMBEDDING_OWNERS):
        return "head", f"weight of {class_name(module)}: its output is the model's"
    return role_of(module, attribute, parameter)


def _override(names: tuple[str, ...], overrides: Mapping[str, Role]) -> Role | None:
    for name in names:
        if name in overrides:
            return overrides[name]
    return next((role for pattern, role in overrides.items() if _matches(pattern, names)), None)


def _matches(pattern: str, names: tuple[str, ...] | list[str]) -> bool:
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for name in names)


def _check_overrides(overrides: Mapping[str, Role], names: list[str]) -> None:
    for pattern, role in overrides.items():
        if role not in ROLES:
            raise unknown("role", str(role), ROLES)
        if not _matches(pattern, names):
            raise unknown("parameter in roles=", pattern, names)


def _no_role(missing: list[tuple[str, str]]) -> DecaylabError:
    first = missing[0][0]
    shown = ", ".join(text for _, text in missing[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return DecaylabError(
        f"no role is known for {'parameter' if len(missing) == 1 else 'parameters'} {shown}{more}; say what it is, "
        f'e.g. roles={{"{first}": "matrix"}} (roles: {", ".join(ROLES)}; names may be glob patterns)'
    )
