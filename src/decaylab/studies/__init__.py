"""The registry of studies: every figure of the paper and everything else that is reproduced, by id."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from decaylab.errors import DecaylabError, unknown
from decaylab.references import is_reference, load, plugins

if TYPE_CHECKING:
    from decaylab.experiments.spec import Experiment


def all_ids() -> tuple[str, ...]:
    """Return the id of every experiment, in the order in which they are shown."""
    return tuple(MODULES)


def get(experiment_id: str) -> Experiment:
    """Return an experiment by its id, or one of the user's.

    Args:
        experiment_id: An id; the name of an installed plugin (entry point ``experiment.NAME``); or
            ``path/to/study.py``, ``package.module`` or either with ``:NAME``, where the experiment is not called
            EXPERIMENT.

    Raises:
        DecaylabError: There is none of that name (the message has near matches), or it is no experiment.
        ValueError: Its module declares another id than its own name.
    """
    if experiment_id in MODULES:
        experiment: Experiment = importlib.import_module(MODULES[experiment_id]).EXPERIMENT
        if experiment.id != experiment_id:
            raise ValueError(f"{experiment_id}.py declares the id {experiment.id!r}; it has to be the module's name")
        return experiment
    if is_reference(experiment_id) or "." in experiment_id:
        return _own(experiment_id, experiment_id)
    offered = plugins("experiment")
    if experiment_id in offered:
        return _own(experiment_id, offered[experiment_id])
    raise unknown("experiment", experiment_id, [*MODULES, *offered, "path/to/study.py"])


def chosen(names: Sequence[str]) -> list[Experiment]:
    """Return several experiments, each once; see `get`.

    Raises:
        DecaylabError: See `get`; or two of them have the same id.
    """
    found: dict[str, Experiment] = {}
    for name in dict.fromkeys(names):
        experiment = get(name)
        if found.setdefault(experiment.id, experiment) is not experiment:
            raise DecaylabError(f"two of these experiments have the id {experiment.id!r}: give one another")
    return list(found.values())


def name_of(experiment: Experiment) -> str:
    """Return what the command line calls an experiment: its id, or the reference by which it was loaded."""
    return _REFERENCES.get(experiment.id, experiment.id)


def _own(name: str, reference: str) -> Experiment:
    from decaylab.experiments.spec import Experiment

    try:
        found = load(reference, default="EXPERIMENT")
    except ValueError as error:
        raise DecaylabError(f"{name}: {error}") from error
    if not isinstance(found, Experiment):
        raise DecaylabError(f"{name} is no experiment: expected EXPERIMENT = decaylab.experiments.Experiment(...)")
    if found.id in MODULES:
        raise DecaylabError(f"{name} declares the id {found.id!r}, which is that of an experiment of decaylab's")
    _REFERENCES[found.id] = name
    return found


def _by_id(*modules: str) -> dict[str, str]:
    """Return the modules by the last part of their name, which is the id of the experiment that they declare."""
    ids = [name.rpartition(".")[2] for name in modules]
    repeated = {name for name in ids if ids.count(name) > 1}
    if repeated:
        raise ValueError(f"experiment id {sorted(repeated)[0]!r} is there twice")
    return {name: f"{__name__}.{module}" for name, module in zip(ids, modules, strict=True)}


_REFERENCES: dict[str, str] = {}
# A new experiment is a file here that defines EXPERIMENT, and its name in this table.
MODULES: dict[str, str] = _by_id(
    *(f"why_weight_decay.fig{number}" for number in range(1, 21)),
    "why_weight_decay.prop3",
    "why_weight_decay.signgd",
    "blog32f",
    "beyond.norm_matched",
    "beyond.intrinsic_time",
    "beyond.lr_lambda",
    "beyond.timescale",
    "beyond.onset",
    "beyond.elr_collapse",
    "beyond.late_decay",
)
