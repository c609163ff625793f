"""The settings of an experiment's runs as tables: what varies between them, and what is the same in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from decaylab.config.identity import to_dict
from decaylab.config.schema import KINDS
from decaylab.experiments.run_spec import RunSpec

# What differs from seed to seed: the seed, and the run that a copy starts from.
_PER_SEED = ("seed", "init_from.run", "decay.norms_from")


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted paths.

    >>> flat({"model": {"width": 8}, "seed": 0})
    {'model.width': 8, 'seed': 0}
    """
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def varying(specs: Sequence[RunSpec]) -> tuple[list[str], list[list[str]]]:
    """Return the settings that vary other than by seed: their paths, and one row for each combination that occurs."""
    every = [flat(spec.settings) for spec in specs]
    paths = list(dict.fromkeys(path for own in every for path in own))
    names = [p for p in paths if p not in _PER_SEED and len({_text(own.get(p, "–")) for own in every}) > 1]
    rows = dict.fromkeys(tuple(_text(own.get(name, "–")) for name in names) for own in every)
    return names, [list(row) for row in rows]


def shared(specs: Sequence[RunSpec]) -> list[tuple[str, str, bool]]:
    """Return the settings that all runs have in common: path, value, and whether it differs from the default."""
    if not specs:
        return []
    every = [flat(spec.settings) for spec in specs]
    defaults = flat(_defaults(specs[0]))
    same = {p: v for p, v in every[0].items() if p not in _PER_SEED and all(p in own and own[p] == v for own in every)}
    return [(path, _text(value), defaults.get(path, value) != value) for path, value in same.items()]


def _defaults(spec: RunSpec) -> Mapping[str, Any]:
    """Return the settings of a run of this kind that sets none; empty where a config has no defaults."""
    if isinstance(spec.config, Mapping):
        return {}
    try:
        return RunSpec(config=type(spec.config)(), labels={}, trainer=spec.trainer).settings
    except TypeError:
        return {}


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(v) for v in value) or "none"
    return str(value)


def differing(configs: Sequence[Mapping[str, Any]], *, defaults: bool = False) -> dict[str, list[Any]]:
    """Return the settings in which runs differ from each other, seeds among them.

    Args:
        configs: Nested settings, one mapping a run; runs of different kinds have different settings.
        defaults: Also those in which a run differs from the defaults of its kind.

    Returns:
        Dotted path to one value a run, None where a run has no such setting. Settings of one kind are compared among
        the runs of that kind, and ``kind`` itself is not among them.
    """
    every = [flat(config) for config in configs]
    found: dict[str, list[Any]] = {}
    for kind in dict.fromkeys(own.get("kind") for own in every):
        own_kind = [own for own in every if own.get("kind") == kind]
        base = flat(to_dict(KINDS[kind]())) if defaults and kind in KINDS else {}
        for path in dict.fromkeys(path for own in own_kind for path in own):
            values = {_text(own.get(path)) for own in own_kind}
            if len(values) > 1 or (path in base and values != {_text(base[path])}):
                found[path] = []
    for path in ("kind", "format"):
        found.pop(path, None)
    return {path: [own.get(path) for own in every] for path in found}


def text(value: Any) -> str:
    """Return a setting as it is shown in a table."""
    return _text(value)
