"""One trial as a run of the store: a command in a process of its own, or a function, trained by a leased worker."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from decaylab.errors import DecaylabError
from decaylab.tuning import command
from decaylab.tuning.coordinates import Point
from decaylab.tuning.metric import Metric

TARGET = "decaylab.tuning.trial:train"
KIND = "trial"


@dataclass(frozen=True)
class Ending:
    """How a trial ended, in the form in which a worker takes it.

    Attributes:
        status: ``done``, ``diverged`` (the metric is no finite number) or ``interrupted``.
        reason: Why, where it is not ``done``.
        steps: Steps of its schedule.
        summary: ``value``, and ``lr`` where the script told the learning rate of its last step.
    """

    status: str
    reason: str
    steps: int
    summary: Mapping[str, float]


def config(task: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """Return the settings of a trial as plain data; what decides its result is in them."""
    return {"task": dict(task), "point": asdict(point)}


def trial_id(content: Mapping[str, Any]) -> str:
    """Return the id of a trial: a digest of its settings."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "t" + hashlib.sha256(text.encode()).hexdigest()[:15]


def train(
    config: Mapping[str, Any],
    record: Callable[[Mapping[str, Any]], None],
    *,
    folder: Path,
    device: str,
    resolve: Any,
    heartbeat: Callable[[int, int], bool],
    resume: bool,
) -> Ending:
    """Run a trial; a worker's training function (see `decaylab.launch.worker`).

    Args:
        config: What `config` made.
        record: Takes the metric when it is there.
        folder: The trial's own: log, reports, and what the script writes to ``{out}``.
        device: ``cuda:N`` is passed on as the only visible GPU.
        resolve: Not used.
        heartbeat: Says whether the run is still wanted.
        resume: Not used: a trial that was stopped starts again.

    Raises:
        DecaylabError: The command failed, took too long, or left no metric.
    """
    task, point = config["task"], Point(**config["point"])
    metric = Metric(**task["metric"])
    variables = {"CUDA_VISIBLE_DEVICES": device.partition(":")[2]} if device.startswith("cuda:") else {}
    if "function" in task:
        found = {"value": call(load(task["function"]), point)}
    else:
        words = command.filled(task["command"], point, folder)
        ended = command.run(
            words,
            folder,
            cwd=Path(task["cwd"]),
            timeout=task.get("timeout"),
            variables=variables,
            go_on=lambda: heartbeat(0, point.steps),
        )
        if ended.stopped:
            return Ending("interrupted", "stopped", 0, {})
        if ended.timed_out:
            raise DecaylabError(f"longer than the time limit of {task['timeout']:g} s; its log is {folder / 'log.txt'}")
        if ended.code:
            said = command.last_words(folder)
            raise DecaylabError(f"the command ended with {ended.code}: {said}; its log is {folder / 'log.txt'}")
        found = metric.read(folder)
    value = found["value"]
    if not math.isfinite(value):
        return Ending("diverged", f"the metric is {value}", point.steps, {})
    record({"step": point.steps, task["metric"]["name"]: value})
    return Ending("done", "", point.steps, found)


def load(name: str) -> Callable[..., Any]:
    """Return a function by ``package.module:name``.

    Raises:
        DecaylabError: It cannot be imported.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise DecaylabError(f"cannot load {name!r}: {error}; expected package.module:function") from None
    if not callable(found):
        raise DecaylabError(f"{name!r} is no function")
    return found  # type: ignore[no-any-return]


def call(function: Callable[..., Any], point: Point) -> float:
    """Call a training function; of a generator of (step, loss) the last loss counts.

    Raises:
        DecaylabError: It gave no number.
    """
    given = function(weight_decay=point.weight_decay, lr=point.lr, steps=point.steps, seed=point.seed)
    if hasattr(given, "__next__"):
        last: Any = None
        for pair in given:
            last = pair
        given = last[1] if isinstance(last, Sequence) and len(last) == 2 else last
    try:
        return float(given)
    except (TypeError, ValueError):
        raise DecaylabError(
            f"the function gave {type(given).__name__} where a loss is needed: return it, or yield (step, loss)"
        ) from None
