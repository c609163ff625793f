"""How is a rule made from what a config holds: a name, a number and options?"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from decaylab.decay.registry import find
from decaylab.errors import DecaylabError, unknown
from decaylab.schedules import DecaySchedule

if TYPE_CHECKING:
    from decaylab.decay.rule import Rule


def build(name: str, weight_decay: float | None = None, **options: Any) -> Rule:
    """Make a rule by its name in the table.

    Args:
        name: Such as ``"decoupled"``, see `decaylab.decay.registry.find`; ``decaylab rules`` lists them.
        weight_decay: lambda. For a rule that has none it must be None or 0; for one that has, None takes its default.
        **options: Further fields of the rule. A decay schedule is ``schedule="cosine_to_zero", total_steps=1000``,
            with the schedule's own fields as ``schedule_fraction``, ``schedule_drop_at`` ("0.5,0.75" or numbers) and
            ``schedule_drop_factor``.

    Returns:
        The rule, ready for `decaylab.decay.attachment`.

    Raises:
        DecaylabError: An unknown name or option, or an impossible value.
    """
    from decaylab.decay.rule import DecayRule

    entry = find(name)
    name = entry.name
    if entry.use != "attach":
        raise DecaylabError(f"{name} is not attached to an optimizer ({entry.use}): see `decaylab rules {name}`")
    known = {option.name for option in entry.options}
    if weight_decay is not None:
        if "weight_decay" in known:
            options["weight_decay"] = weight_decay
        elif weight_decay != 0:
            raise DecaylabError(f"the rule {name} has no weight_decay: leave it out or set it to 0")
    elif any(option.name == "weight_decay" and option.default == "required" for option in entry.options):
        raise DecaylabError(f"the rule {name} needs weight_decay")
    for option in entry.options:
        if option.default == "required" and option.name not in ("weight_decay", *options):
            raise DecaylabError(f"the rule {name} needs {option.name}: {option.text or 'see its source'}")
    cls = entry.load()
    if entry.scheduled and issubclass(cls, DecayRule):
        known |= {"schedule", "total_steps"}
        options = _join_schedule(options)
    for key in options:
        if key not in known:
            raise unknown(f"option of the decay rule {name!r}", key, known)
    hints = get_type_hints(cls)
    for key, value in options.items():
        options[key] = _taken(value, hints[key])
        if options[key] is _UNFIT:
            raise DecaylabError(f"{key} of the decay rule {name} must be {_in_words(hints[key])}, not {value!r}")
    rule: Rule = cls(**options)
    return rule


_UNFIT = object()
_WORDS = {bool: "True or False", int: "a whole number", float: "a number", DecaySchedule: "a decay schedule"}


def _taken(value: Any, hint: Any) -> Any:
    """Return a value as a field's type has it, numbers as Python's own; `_UNFIT` where it is of another.

    A name fits where names are wanted; whether it is a known one says the rule itself.
    """
    if get_origin(hint) in (Union, UnionType):
        return next((found for c in get_args(hint) if (found := _taken(value, c)) is not _UNFIT), _UNFIT)
    if get_origin(hint) is Literal:
        return value if isinstance(value, str) else _UNFIT
    if not isinstance(hint, type):  # a rule of the user's may have fields of any type
        return value
    if hint not in (int, float):
        return value if isinstance(value, hint) else _UNFIT
    if type(value) is bool or not isinstance(value, Real):
        return _UNFIT
    number = float(value)
    return number if hint is float else int(number) if number.is_integer() else _UNFIT


def _in_words(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_in_words(choice) for choice in get_args(hint) if choice is not NoneType)
    return "a name" if get_origin(hint) is Literal else _WORDS.get(hint, f"a {getattr(hint, '__name__', hint)}")


def _join_schedule(options: dict[str, Any]) -> dict[str, Any]:
    """Make one `DecaySchedule` of the flat ``schedule`` options of a config."""
    flat = {key: value for key, value in options.items() if key.startswith("schedule_")}
    rest = {key: value for key, value in options.items() if key not in flat}
    given = rest.pop("schedule", None)
    if given is None and not flat:
        return rest
    if isinstance(given, DecaySchedule):
        return {**rest, "schedule": given}
    fields = dict(given) if isinstance(given, Mapping) else {"kind": given}
    fields |= {key.removeprefix("schedule_"): value for key, value in flat.items()}
    known = ("kind", "fraction", "drop_at", "drop_factor")
    for key in fields:
        if key not in known:
            raise unknown("field of a decay schedule", key, known)
    drops = fields.get("drop_at", ())
    if isinstance(drops, str):
        drops = drops.split(",")
    elif isinstance(drops, float | int):
        drops = (drops,)
    if "drop_at" in fields:
        fields["drop_at"] = tuple(float(drop) for drop in drops)
    return {**rest, "schedule": DecaySchedule(**fields)}
