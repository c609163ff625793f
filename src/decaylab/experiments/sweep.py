"""Sweeps: a base config, some settings varied, every combination with every seed, as an experiment of one's own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from decaylab.config.component_checks import check_optimizer
from decaylab.config.identity import to_dict
from decaylab.config.schema import AnyRun
from decaylab.config.validation import check
from decaylab.errors import DecaylabError, shown, unknown
from decaylab.experiments.chart_data import curves, finals
from decaylab.experiments.config_tables import flat, text
from decaylab.experiments.grid import grid
from decaylab.experiments.paired import PairedTable, Setting
from decaylab.experiments.run_spec import Label, RunSpec
from decaylab.experiments.spec import Chart, Experiment, Table
from decaylab.serialization import decode

if TYPE_CHECKING:
    import pandas as pd

    from decaylab.experiments.results import Results

_MOST_RUNS = 10_000
_WORDS: Mapping[str, Any] = {"none": None, "true": True, "false": False, "yes": True, "no": False}
_RESERVED = {"run", "step", "epoch", "fraction", "value", "status", "reason", "total_steps", "seed", "setting"}


def axes(base: AnyRun, texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Read what is varied.

    Args:
        base: The settings that do not vary.
        texts: One axis each, ``decay.weight_decay=0,0.1,1``: a setting's path, or its last part where that is the only
            one of its name, and its values. Values with commas stand in brackets:
            ``optimizer.betas=[0.9,0.95],[0.9,0.99]``.

    Returns:
        Path to values, in their order.

    Raises:
        DecaylabError: An unknown setting, a value of another type, one value only, or one twice.
    """
    paths = [path for path in flat(to_dict(base)) if path not in ("kind", "format")]
    found: dict[str, tuple[Any, ...]] = {}
    for one in texts:
        name, sign, values = one.partition("=")
        if not sign:
            raise DecaylabError(
                f"--vary {shown(one)}: expected KEY=VALUE,VALUE,..., such as decay.weight_decay=0,0.1,1"
            )
        path = _path(name.strip(), paths)
        if path == "seed":
            raise DecaylabError("--vary seed: seeds are varied by --seeds N, and everything is paired by them")
        if path in found:
            raise DecaylabError(f"--vary {path} is there twice: give all of its values in one")
        read = tuple(_value(base, path, value) for value in _split(values))
        if len(read) < 2:
            raise DecaylabError(f"--vary {path} has one value: give two or more, with commas between")
        if len({repr(value) for value in read}) < len(read):
            raise DecaylabError(f"--vary {path} has a value twice: {shown(values, quoted=False)}")
        found[path] = read
    if not found:
        raise DecaylabError("what is varied? give --vary KEY=VALUE,VALUE,..., such as decay.weight_decay=0,0.1,1")
    return found


def plan(base: AnyRun, varied: Mapping[str, Sequence[Any]], num_seeds: int) -> tuple[RunSpec, ...]:
    """Return every combination with every seed, labelled by the settings that vary.

    Raises:
        DecaylabError: A combination that cannot be trained, too many of them, or no seed.
    """
    if num_seeds < 1:
        raise DecaylabError(f"--seeds must be at least 1, not {num_seeds}")
    count = math.prod(len(values) for values in varied.values()) * num_seeds
    if count > _MOST_RUNS:
        raise DecaylabError(f"these are {count:,} runs, and a sweep has {_MOST_RUNS:,} at most: vary less")
    names = labels(varied)
    seeds = range(base.seed, base.seed + num_seeds)
    # A label is a number or a text: other values, such as pairs, are labelled by their text.
    by_path = {
        path: values if all(_is_label(value) for value in values) else {text(value): value for value in values}
        for path, values in varied.items()
    }
    try:
        specs = grid(base, {**by_path, "seed": seeds}, names=names)
    except ValueError as error:
        raise DecaylabError(str(error)) from error
    for spec in specs:
        check(spec.config)
        check_optimizer(spec.config)
    return specs


def labels(varied: Mapping[str, Any]) -> dict[str, str]:
    """Return the label of each varied setting: the last part of its path, or all of it where that is not enough."""
    last = {path: path.rsplit(".", 1)[-1] for path in varied}
    counts = list(last.values())
    return {
        path: path.replace(".", "_") if counts.count(name) > 1 or name in _RESERVED else name
        for path, name in last.items()
    }


def settings(specs: Sequence[RunSpec], varied: Mapping[str, Any]) -> list[Setting]:
    """Return the combinations in their order, each with the run of every seed."""
    names = list(labels(varied).values())
    found: dict[str, dict[Label, str]] = {}
    for spec in specs:
        found.setdefault(setting_name(spec, names), {})[spec.labels["seed"]] = spec.id
    return [Setting(name=name, runs=runs) for name, runs in found.items()]


def setting_name(spec: RunSpec, names: Sequence[str]) -> str:
    """Return what a run's combination is called: its value, or its values with their names."""
    values = {name: _written(spec.labels[name]) for name in names}
    return next(iter(values.values())) if len(values) == 1 else " with ".join(f"{n} {v}" for n, v in values.items())


def experiment(
    base: AnyRun,
    varied: Mapping[str, Sequence[Any]],
    specs: Sequence[RunSpec],
    table: PairedTable,
    *,
    metric: str,
    command: str,
) -> Experiment:
    """Return a sweep as an experiment, for the page.

    Args:
        base: The settings that do not vary.
        varied: What varies.
        specs: The runs.
        table: What they gave.
        metric: The key that is compared.
        command: What made it.
    """
    names = list(labels(varied).values())
    first, rest = names[0], names[1:]
    unit = table.quantity.unit
    title = f"{metric} ({unit})" if unit else metric
    numbers = [value for value in next(iter(varied.values())) if isinstance(value, int | float)]
    spread = len(numbers) > 2 and min(numbers) > 0 and max(numbers) / min(numbers) >= 10
    horizontal = "epoch" if hasattr(base, "epochs") else "step"
    seeds = sorted({int(spec.labels["seed"]) for spec in specs})
    return Experiment(
        id="sweep",
        title=f"Sweep of {' and '.join(varied)}",
        paper="own",
        question=table.sentence,
        seeds={"mini": tuple(seeds)},
        plan=lambda _, __: specs,
        charts=(
            Chart(
                id="final",
                title=f"Final {metric}",
                data=_with_text(finals(metric), first, rest),
                kind="points",
                x=first if spread else "value_text",
                color="others" if rest else None,
                log_x=spread,
                x_title=next(iter(varied)),
                y_title=title,
                color_title=" with ".join(rest),
                caption="Mean over seeds with its 95 % interval; small points are the seeds.",
            ),
            Chart(
                id="curve",
                title=f"{metric} along training",
                data=_with_text(curves(metric), first, rest),
                x=horizontal,
                color="combination",
                palette="ordered" if not rest and numbers else "plain",
                x_title=horizontal,
                y_title=title,
                color_title=", ".join(varied) if not rest else "",
                caption="Mean over seeds with its 95 % interval.",
            ),
        ),
        tables=(
            Table(
                id="differences",
                title=f"Final {metric}, paired by seed with {table.baseline}",
                data=lambda _: table.frame(),
                columns={
                    "setting": table.what or "setting",
                    "mean": f"mean ({unit})" if unit else "mean",
                    "difference": f"minus {table.baseline}",
                    "standing": "",
                    "seeds": "seeds",
                    "diverged": "diverged",
                },
                caption="Paired differences within each seed, with 95 % intervals, each by itself.",
            ),
        ),
        claims=(),
        recipe={"mini": f"Every combination with the seeds {', '.join(map(str, seeds))}; nothing else differs."},
        command=command,
    )


def _with_text(data: Callable[[Results], pd.DataFrame], first: str, rest: Sequence[str]) -> Any:
    def read(results: Results) -> pd.DataFrame:
        frame = data(results)
        names = [first, *rest]
        written = {name: frame[name].map(_written) for name in names}
        frame["value_text"] = written[first]
        frame["others"] = _joined(written, rest)
        frame["combination"] = _joined(written, names) if rest else written[first]
        return frame

    return read


def _joined(columns: Mapping[str, Any], names: Sequence[str]) -> Any:
    whole: Any = ""
    for name in names:
        whole = whole + (" with " if name != names[0] else "") + f"{name} " + columns[name]
    return whole


def _written(value: Label) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_label(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _path(name: str, paths: Sequence[str]) -> str:
    wanted = name.removeprefix("--").replace("-", "_")
    if wanted in paths:
        return wanted
    ends = [path for path in paths if path.rsplit(".", 1)[-1] == wanted]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise DecaylabError(f"--vary {shown(name, quoted=False)} may mean {' or '.join(ends)}: say which")
    raise unknown("setting to vary", name, paths)


def _split(values: str) -> list[str]:
    """Cut at commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(values):
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and depth <= 0:
            parts.append(values[start:place])
            start = place + 1
    return [part.strip() for part in (*parts, values[start:]) if part.strip()]


def _value(base: AnyRun, path: str, written: str) -> Any:
    """Read a value as its setting's type has it."""
    candidates: list[Any] = []
    try:
        candidates.append(json.loads(written))
    except (ValueError, RecursionError):
        if written.lower() in _WORDS:
            candidates.append(_WORDS[written.lower()])
    candidates.append(written)
    errors = []
    for candidate in candidates:
        content: Any = candidate
        for part in reversed(path.split(".")):
            content = {part: content}
        try:
            changed = decode(type(base), content, base=base)
        except DecaylabError as error:
            errors.append(error)
            continue
        return _read(changed, path)
    raise DecaylabError(f"--vary {path}: {errors[0]}") from errors[0]


def _read(config: Any, path: str) -> Any:
    for part in path.split("."):
        config = getattr(config, part)
    return config
