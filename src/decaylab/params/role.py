"""Role of each parameter of a model: matrix, embedding, head, norm, bias, scalar, or unknown.

The answer comes from the module that owns the parameter, never from a substring of its name: a ``Linear`` owns a matrix
and a bias, a ``LayerNorm`` owns two norm parameters, whatever they are called in the model. What no known class owns is
judged by its shape and the words of its own name. Reading goes on where that says nothing either (`assign`, with the
role ``"unknown"``); only who decides what decays has to ask.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.utils import parametrize

from decaylab.errors import DecaylabError, unknown
from decaylab.params.attribute_names import is_vector, named_role
from decaylab.params.authors_marks import marked_by_author
from decaylab.params.head import find_heads, with_replacements
from decaylab.params.owner import (
    EMBEDDING_OWNERS,
    ROLES,
    UNKNOWN,
    ReportedRole,
    Role,
    class_name,
    hooked_weight_norm,
    is_adapter,
    is_weight_norm_gain,
    role_of,
)

__all__ = ["ROLES", "UNKNOWN", "Assignment", "ReportedRole", "Role", "ask", "assign", "roles"]


_CONTAINERS = (nn.ParameterList, nn.ParameterDict, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, eq=False)
class Assignment:
    """One parameter with its role and the reason for it.

    Attributes:
        name: Its first name in ``model.named_parameters()``.
        parameter: The tensor itself.
        role: One of `ROLES`, or ``"unknown"``.
        why: The reason in words, naming the owning module.
        aliases: Its other names where it is tied (shared by several modules); empty otherwise.
        mark: Why its author says that it must not decay (`decaylab.params.authors_marks`); empty otherwise.
        owner: Class of the module that holds it.
    """

    name: str
    parameter: nn.Parameter
    role: ReportedRole
    why: str
    aliases: tuple[str, ...] = ()
    mark: str = ""
    owner: str = ""

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


def roles(model: nn.Module, roles: Mapping[str, Role] | None = None, *, strict: bool = True) -> dict[str, ReportedRole]:
    """Map the name of every parameter to its role; a tied parameter appears once, under its first name.

    ========= =====================================================================================================
    role      parameters
    ========= =====================================================================================================
    matrix    weights of Linear, convolutions, Bilinear, recurrent cells, attention projections (also transformers'
              ``Conv1D`` and the ``in_proj_weight`` of ``nn.MultiheadAttention``), stacked experts, routers, the
              low-rank factors of adapters
    embedding weights of Embedding and EmbeddingBag; positional embeddings and learned tokens, also where they are bare
              parameters; a head that is tied to an embedding
    head      the weight of the Linear whose output is the vocabulary or the classes (`find_heads`)
    norm      weight and bias of BatchNorm, LayerNorm, GroupNorm, InstanceNorm, RMSNorm, GRN, DyT
    bias      biases of all other modules
    scalar    other multipliers, one a head, channel or entry: PReLU slopes, LayerScale, temperatures, step sizes,
              masks, exponents and skips of state-space layers, the gain of weight norm, DoRA's magnitude
    ========= =====================================================================================================

    Args:
        model: Any module. Nothing is computed with it, so it may live on the meta device.
        roles: Overrides, for parameters that no rule knows or to correct a role: parameter name or glob pattern
            (``"blocks.*.gate"``) to role. An exact name wins over a pattern.
        strict: Whether a parameter that no rule knows is an error; ``False`` reports it as ``"unknown"``.

    Returns:
        Name to role, in the order of ``model.named_parameters()``.

    Raises:
        DecaylabError: A parameter has no role (named, with the override that mends it), an override matches nothing
            or names no role, or a lazy module has not seen its first batch.
    """
    found = assign(model, roles)
    if strict:
        ask(found)
    return {item.name: item.role for item in found}


def assign(model: nn.Module, roles: Mapping[str, Role] | None = None) -> list[Assignment]:
    """Give every parameter its role with the reason; see `roles` for the rules and the arguments.

    Meant for reading: a parameter that no rule knows gets the role ``"unknown"``, and is no error. Whoever goes on to
    decide something by the roles calls `ask` first.
    """
    places: dict[int, list[_Place]] = {}
    for place in _places(model):
        places.setdefault(id(place.module._parameters[place.attribute]), []).append(place)
    overrides = roles or {}
    _check_overrides(overrides, [place.name for group in places.values() for place in group])
    heads, marks = with_replacements(find_heads(model)), marked_by_author(model)
    found: list[Assignment] = []
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise DecaylabError(f"parameter {name!r} has no shape yet: run one batch through the lazy modules first")
        here = places[id(parameter)]
        aliases = tuple(place.name for place in here if place.name != name)
        override = _override((name, *aliases), overrides)
        owner = class_name(here[0].module)
        role: ReportedRole = UNKNOWN
        why = f"no rule knows {here[0].attribute} of {owner}"
        if override:
            role, why = override, "role given by the caller"
        elif verdict := _decide(here, parameter, model, heads):
            role, why = verdict
        if aliases:
            why += f"; tied with {', '.join(aliases)}"
        found.append(Assignment(name, parameter, role, why, aliases, marks.get(id(parameter), ""), owner))
    return found


def ask(items: Sequence[Assignment]) -> None:
    """Ask for the roles that no rule knows.

    Args:
        items: What `assign` returned, or the part of it that something is to be decided about.

    Raises:
        DecaylabError: Some role is unknown; the message names the parameters and what their shapes suggest.
    """
    missing = [item for item in items if item.role == UNKNOWN]
    if missing:
        raise _no_role(missing)


def _places(model: nn.Module) -> Iterator[_Place]:
    """Every place that holds a parameter, so a shared parameter comes several times."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                yield _Place(f"{prefix}.{attribute}" if prefix else attribute, module, attribute)


def _decide(
    places: list[_Place], parameter: nn.Parameter, model: nn.Module, heads: set[nn.Module]
) -> tuple[Role, str] | None:
    """The first known role among the parameter's places; an embedding wins, because ties go to the look-up."""
    verdicts = [verdict for place in places if (verdict := _at(place, parameter, model, heads)) is not None]
    return next((verdict for verdict in verdicts if verdict[0] == "embedding"), verdicts[0] if verdicts else None)


def _at(place: _Place, parameter: nn.Parameter, model: nn.Module, heads: set[nn.Module]) -> tuple[Role, str] | None:
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
    elif isinstance(module, nn.ParameterList | nn.ParameterDict):
        return _in_container(place, parameter, model)
    if module in heads and attribute == "weight" and not isinstance(module, EMBEDDING_OWNERS):
        return "head", f"weight of {class_name(module)}: its output is the model's"
    return role_of(module, attribute, parameter)


def _in_container(place: _Place, parameter: nn.Parameter, model: nn.Module) -> tuple[Role, str] | None:
    """A ParameterList's numbers and a ParameterDict's keys say little: the attribute that holds them has the name."""
    path = place.name.split(".")
    depth = len(path) - 1
    while depth and isinstance(holder := model.get_submodule(".".join(path[:depth])), _CONTAINERS):
        depth -= 1
    if not depth:
        holder = model
    attributes = path[depth:]  # of the holder, then keys: experts.0, lora_A.default, weights.1.bias
    if is_adapter(holder, attributes[0]):
        known = (named[0] for attribute in attributes if (named := named_role(attribute, parameter)))
        return next(known, suggested(parameter)), f"{attributes[0]} of {class_name(holder)}: an adapter's"
    found = (role_of(holder, attribute, parameter) for attribute in attributes)
    return next((verdict for verdict in found if verdict is not None), None)


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


def _no_role(missing: Sequence[Assignment]) -> DecaylabError:
    kinds: dict[tuple[str, str], list[Assignment]] = {}
    for item in missing:
        kinds.setdefault((item.owner, item.name.rpartition(".")[2]), []).append(item)
    hints = {
        (items[0].name if len(items) == 1 else f"*.{attribute}"): suggested(items[0].parameter)
        for (_, attribute), items in kinds.items()
    }
    shown = ", ".join(f"{item.name!r} ({item.owner}, shape {tuple(item.parameter.shape)})" for item in missing[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    example = ", ".join(f'"{name}": "{role}"' for name, role in list(hints.items())[:5])
    return DecaylabError(
        f"no role is known for {'parameter' if len(missing) == 1 else 'parameters'} {shown}{more}; say what it is, "
        f"e.g. roles={{{example}}} (roles: {', '.join(ROLES)}; names may be glob patterns)"
    )


def suggested(parameter: nn.Parameter) -> Role:
    """The role that a shape suggests: a scalar where at most one dimension is above 1, else a matrix."""
    return "scalar" if is_vector(parameter) else "matrix"
