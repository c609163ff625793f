"""Which decay rules are there? One entry a rule: for config choices, ``decaylab rules``, the docs page and the tests.

This file imports no torch, so that the command line can list rules at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from decaylab.errors import DecaylabError, unknown
from decaylab.schedules import DecaySchedule

if TYPE_CHECKING:
    from decaylab.decay.rule import Rule


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a rule.

    Attributes:
        name: Name of the field.
        default: Its default as it is written in Python, or ``required``.
        text: What it means, one line.
    """

    name: str
    default: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What there is to know of a rule.

    Attributes:
        name: Its name in configs.
        path: ``module:Class``.
        family: Which family it belongs to.
        use: How it is used: ``attach`` (a rule), ``parametrize``, ``function`` or ``penalty``.
        text: What it does, one line.
        equation: Its equation; p weight, g gradient, u the optimizer's update without decay, t step.
        applies_to: Which parameters it is meant for.
        memory: Memory beside the optimizer's own.
        zero_grad: What it does where the gradient is zero (where there is none it never does anything).
        paper: Where it comes from.
        options: Its options, without ``schedule`` and ``total_steps``.
        scheduled: Whether it has a ``weight_decay`` that a decay schedule can multiply.
    """

    name: str
    path: str
    family: str
    use: str = "attach"
    text: str
    equation: str
    applies_to: str
    memory: str
    zero_grad: str
    paper: str
    options: tuple[Option, ...] = field(default=())
    scheduled: bool = True

    def load(self) -> Any:
        """Import and return the class or function (this imports torch)."""
        module, name = self.path.split(":")
        return getattr(importlib.import_module(module), name)


_LAMBDA = "lambda, at least 0"

_ENTRIES = (
    Entry(
        name="l2",
        path="decaylab.decay.classic:L2",
        family="classic",
        text="the gradient of an L2 penalty, added before momentum and moments",
        equation="g <- g + lambda p",
        applies_to="any",
        memory="none (one gradient copy during the step where torch's kernel cannot do it)",
        zero_grad="decays",
        paper="Krogh and Hertz 1991",
        options=(Option(name="weight_decay", default="required", text=_LAMBDA),),
    ),
    Entry(
        name="decoupled",
        path="decaylab.decay.classic:Decoupled",
        family="classic",
        text="AdamW's decay: beside the update, times the learning rate",
        equation="p <- p (1 - lr_t lambda) - lr_t u",
        applies_to="any",
        memory="none",
        zero_grad="decays",
        paper="Loshchilov and Hutter 2019 (arXiv 1711.05101), torch's convention",
        options=(Option(name="weight_decay", default="0.01", text=_LAMBDA),),
    ),
    Entry(
        name="sphere",
        path="decaylab.decay.projection:SphereProjection",
        family="norm control",
        text="puts the weights back on a sphere after the step, jointly or each tensor on its own",
        equation="w <- R w / ||w||",
        applies_to="scale-invariant weights",
        memory="none (a number a tensor)",
        zero_grad="projects",
        paper="Kodryan et al. 2022 (arXiv 2209.03695)",
        options=(
            Option(name="radius", default="None", text="R; None: the norm at attaching"),
            Option(name="joint", default="True", text="one sphere for all parameters, or one a tensor"),
            Option(name="every", default="1", text="project after every so many steps"),
        ),
        scheduled=False,
    ),
)


def _index(entries: tuple[Entry, ...]) -> dict[str, Entry]:
    table = {entry.name: entry for entry in entries}
    if len(table) != len(entries):
        raise ValueError("two decay rules have the same name")
    return table


TABLE: Mapping[str, Entry] = _index(_ENTRIES)


def build(name: str, weight_decay: float | None = None, **options: Any) -> Rule:
    """Make a rule by its name in the table.

    Args:
        name: Such as ``"decoupled"``; ``decaylab rules`` lists them.
        weight_decay: lambda. For a rule that has none it must be None or 0; for one that has, None takes its default.
        **options: Further fields of the rule. A decay schedule is ``schedule="cosine_to_zero", total_steps=1000``,
            with the schedule's own fields as ``schedule_fraction``, ``schedule_drop_at`` ("0.5,0.75" or numbers) and
            ``schedule_drop_factor``.

    Returns:
        The rule, ready for `decaylab.decay.attach`.

    Raises:
        DecaylabError: An unknown name or option, or an impossible value.
    """
    rules = {key: entry for key, entry in TABLE.items() if entry.use == "attach"}
    if name not in rules:
        if name in TABLE:
            raise DecaylabError(f"{name} is no rule to attach but a {TABLE[name].use}: see `decaylab rules {name}`")
        raise unknown("decay rule", name, rules)
    entry = rules[name]
    known = {option.name for option in entry.options}
    if weight_decay is not None:
        if "weight_decay" in known:
            options["weight_decay"] = weight_decay
        elif weight_decay != 0:
            raise DecaylabError(f"the rule {name} has no weight_decay: leave it out or set it to 0")
    elif any(option.name == "weight_decay" and option.default == "required" for option in entry.options):
        raise DecaylabError(f"the rule {name} needs weight_decay")
    if entry.scheduled:
        known |= {"schedule", "total_steps"}
        options = _join_schedule(options)
    for key in options:
        if key not in known:
            raise unknown(f"option of the decay rule {name!r}", key, known)
    rule: Rule = entry.load()(**options)
    return rule


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
