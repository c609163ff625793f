"""Choice of the parameters that decay: by role, by their author's marks, with the user's exceptions; as groups."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from decaylab.errors import DecaylabError, unknown
from decaylab.params.marks import mark
from decaylab.params.role import ROLES, UNKNOWN, Assignment, Role, ask, assign

UNDECIDED = "nobody decided whether it decays"


def decay_groups(
    model: nn.Module,
    *,
    weight_decay: float | None = None,
    decay: Iterable[Role] = ("matrix", "embedding"),
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    roles: Mapping[str, Role] | None = None,
) -> list[dict[str, Any]]:
    """Split a model's trainable parameters into a group that decays and a group that does not.

    Two groups at most, however many roles there are: fused and foreach optimizers launch one kernel a group.

    Args:
        model: Any module.
        weight_decay: The coefficient of the group that decays, a plain float (fused kernels take no tensor). None
            leaves it to the optimizer's own ``weight_decay``, or to an attached rule.
        decay: The roles that decay. A head is a matrix: ``"matrix"`` covers it; ``exclude=("head",)`` leaves it out.
        include: Decay these also: role names, glob patterns, or parameter names or whole parts of them between dots
            (``"lm_head"``, ``"blocks.0"``). Wins over its author's mark (``_no_weight_decay``, ``no_weight_decay()``),
            which otherwise keeps a parameter from decaying.
        exclude: Never decay these; wins over ``decay`` and ``include``.
        roles: Overrides of roles, as in `decaylab.params.roles`.

    Returns:
        Group dicts with ``params`` in the model's order, ``decay`` (True or False, which attached rules honour) and
        ``weight_decay`` (0.0 in the group that does not decay). An empty group is left out. Frozen parameters
        (``requires_grad=False``) are in no group; tied ones once. Attached rules also know the split by parameter, so
        that a loaded state without the key ``decay`` changes nothing.

    Raises:
        DecaylabError: A trainable parameter without a role that neither ``include`` nor ``exclude`` decides about, an
            unknown role, a pattern that matches nothing, ``"head"`` where no head was found, a negative coefficient, or
            no trainable parameter at all.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
        >>> [(len(g["params"]), g["decay"], g["weight_decay"]) for g in decay_groups(model, weight_decay=0.1)]
        [(2, True, 0.1), (4, False, 0.0)]
    """
    if weight_decay is not None and not weight_decay >= 0:
        raise DecaylabError(f"weight_decay is {weight_decay}: it must be zero or positive")
    yes: list[nn.Parameter] = []
    no: list[nn.Parameter] = []
    for item, decays, _ in decayed(assign(model, roles), decay=decay, include=include, exclude=exclude):
        if item.parameter.requires_grad:
            (yes if decays else no).append(item.parameter)
    if not yes and not no:
        raise DecaylabError("the model has no trainable parameter: nothing to put into groups")
    mark(yes, True)
    mark(no, False)
    with_decay: dict[str, Any] = {"params": yes, "decay": True}
    if weight_decay is not None:
        with_decay["weight_decay"] = float(weight_decay)
    without: dict[str, Any] = {"params": no, "decay": False, "weight_decay": 0.0}
    return [group for group in (with_decay, without) if group["params"]]


def decayed(
    items: Sequence[Assignment],
    *,
    decay: Iterable[Role] = ("matrix", "embedding"),
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    strict: bool = True,
) -> list[tuple[Assignment, bool, str]]:
    """Decide for every assignment whether it decays, with the reason in words; arguments as in `decay_groups`.

    Args:
        items: What `decaylab.params.assign` returned.
        decay: As in `decay_groups`.
        include: As in `decay_groups`.
        exclude: As in `decay_groups`.
        strict: Whether an unknown role that decides is an error; ``False`` (for reading) lets it not decay.
    """
    chosen = _roles("decay", decay)
    include, exclude = _patterns("include", include, items), _patterns("exclude", exclude, items)
    verdicts = []
    open_: list[Assignment] = []
    for item in items:
        out = next((pattern for pattern in exclude if _selects(pattern, item)), None)
        extra = next((pattern for pattern in include if _selects(pattern, item)), None)
        by_role = item.role in chosen or (item.role == "head" and "matrix" in chosen)
        if out is not None:
            verdict = (False, f"excluded by {out!r}")
        elif extra is not None and (item.mark or not by_role):
            verdict = (True, f"included by {extra!r}")
        elif item.mark:
            verdict = (False, item.mark)
        elif item.role == UNKNOWN:
            verdict = (False, UNDECIDED)
            open_ += [item] if item.parameter.requires_grad else []
        elif by_role:
            verdict = (True, f"{item.role} decays" if item.role in chosen else "head decays: a matrix")
        else:
            verdict = (False, f"{item.role} does not decay")
        verdicts.append((item, *verdict))
    if strict:
        ask(open_)
    return verdicts


def _roles(argument: str, names: Iterable[Role]) -> set[str]:
    chosen = _strings(argument, names)
    for name in chosen:
        if name not in ROLES:
            raise unknown(f"role in {argument}=", name, ROLES)
    return set(chosen)


def _patterns(argument: str, patterns: Iterable[str], items: Sequence[Assignment]) -> list[str]:
    """Check that every pattern selects something: a typing error must not silently decay. Most roles may be empty."""
    listed = _strings(argument, patterns)
    for pattern in listed:
        if any(_selects(pattern, item) for item in items):
            continue
        if pattern == "head":  # found by rules that may miss it; the other roles are there or are not
            raise DecaylabError(
                f"{argument}= names the head, but no parameter has that role (it may be tied to an embedding, or not "
                f'be found): name the parameter, {argument}=("its.name",), or say what it is, '
                'roles={"its.name": "head"}'
            )
        if pattern not in ROLES:
            raise _matches_nothing(argument, pattern, items)
    return listed


def _matches_nothing(argument: str, pattern: str, items: Sequence[Assignment]) -> DecaylabError:
    names = [name for item in items for name in item.names]
    inside = [name for name in names if pattern in name]
    if inside:  # a piece of a word: never matched, because "head" is a piece of "overhead" too
        return DecaylabError(
            f"{pattern!r} in {argument}= is a piece of {inside[0]!r}, but names are matched by whole parts between "
            f'dots: write a pattern, {argument}=("*{pattern}*",)'
        )
    return unknown(f"name in {argument}=", pattern, names)


def _strings(argument: str, values: Iterable[str]) -> list[str]:
    if isinstance(values, str):  # a lone string would be read letter by letter
        raise DecaylabError(f'{argument}={values!r} must be a tuple of names: {argument}=("{values}",)')
    return list(values)


def _selects(pattern: str, item: Assignment) -> bool:
    if pattern in ROLES:
        return item.role == pattern
    if any(sign in pattern for sign in "*?["):
        return any(fnmatch.fnmatchcase(name, pattern) for name in item.names)
    return any(f".{pattern.strip('.')}." in f".{name}." for name in item.names)
