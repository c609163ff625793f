"""The runs of an experiment as a grid: one base config, some settings varied, every combination with every seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import with_settings

Axis = Iterable[Any]  # values, or a mapping of names to values


def grid(
    base: Any,
    axes: Mapping[Any, Axis],
    *,
    names: Mapping[Any, str] | None = None,
    labels: Mapping[str, Label] | None = None,
) -> tuple[RunSpec, ...]:
    """Return one labelled run for each combination of settings.

    Args:
        base: The settings that do not vary: a run's config, or any frozen dataclass or mapping.
        axes: Dotted path of a setting to its values. A tuple of paths varies several settings together, and its values
            are tuples. Values given as a mapping have names: ``{"optimizer.lr": {"large": 0.2, "small": 0.01}}`` labels
            the runs ``lr="large"`` and keeps the number as ``lr_value=0.2``, so that claims can speak of the large
            learning rate at every budget.
        names: Label of an axis; the last part of its (first) path by default, and ``wd`` for ``weight_decay``.
        labels: Labels that all these runs share, such as the network's name.

    Returns:
        The runs, the last axis varying fastest.

    >>> from decaylab.config.schema import VisionRun
    >>> runs = grid(VisionRun(), {"optimizer.lr": [0.1, 0.2], "decay.weight_decay": [0.0, 0.01], "seed": [0, 1, 2]})
    >>> len(runs), runs[1].labels
    (12, {'lr': 0.1, 'wd': 0.0, 'seed': 1})
    """
    choices = [_choices(path, values, (names or {}).get(path)) for path, values in axes.items()]
    specs = []
    for combination in itertools.product(*choices):
        settings: dict[str, Any] = {}
        own: dict[str, Label] = dict(labels or {})
        for change, label in combination:
            settings |= change
            own |= label
        seed = base.get("seed") if isinstance(base, Mapping) else getattr(base, "seed", None)
        if seed is not None:
            own.setdefault("seed", seed)
        specs.append(RunSpec(config=with_settings(base, settings), labels=own))
    return tuple(specs)


def _choices(
    path: str | tuple[str, ...], values: Axis, name: str | None
) -> list[tuple[dict[str, Any], dict[str, Label]]]:
    """Return (settings, labels) for each value of one axis."""
    paths = (path,) if isinstance(path, str) else path
    if name is None:
        last = paths[0].split(".")[-1]
        name = "wd" if last == "weight_decay" else last
    named = isinstance(values, Mapping)
    pairs = values.items() if isinstance(values, Mapping) else ((None, value) for value in values)
    found = []
    for label, value in pairs:
        together = (value,) if isinstance(path, str) else tuple(value)
        if len(together) != len(paths):
            raise ValueError(f"axis {path}: {len(paths)} settings vary together, but a value is {value!r}")
        first = together[0]
        plain: Label = first if isinstance(first, str | float | int) else str(first)
        labels: dict[str, Label] = {name: str(label), f"{name}_value": plain} if named else {name: plain}
        found.append((dict(zip(paths, together, strict=True)), labels))
    return found
