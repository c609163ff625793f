"""The registry of studies: every figure of the paper and everything else that is reproduced, by id."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from decaylab.errors import unknown

if TYPE_CHECKING:
    from decaylab.experiments.spec import Experiment


def all_ids() -> tuple[str, ...]:
    """Return the id of every experiment, in the order in which they are shown."""
    return tuple(MODULES)


def get(experiment_id: str) -> Experiment:
    """Return an experiment by its id.

    Raises:
        DecaylabError: There is none of that name; the message has near matches.
        ValueError: Its module declares another id than its own name.
    """
    if experiment_id not in MODULES:
        raise unknown("experiment", experiment_id, MODULES)
    experiment: Experiment = importlib.import_module(MODULES[experiment_id]).EXPERIMENT
    if experiment.id != experiment_id:
        raise ValueError(f"{experiment_id}.py declares the id {experiment.id!r}; it has to be the module's name")
    return experiment


def _by_id(*modules: str) -> dict[str, str]:
    """Return the modules by the last part of their name, which is the id of the experiment that they declare."""
    ids = [name.rpartition(".")[2] for name in modules]
    repeated = {name for name in ids if ids.count(name) > 1}
    if repeated:
        raise ValueError(f"experiment id {sorted(repeated)[0]!r} is there twice")
    return {name: f"{__name__}.{module}" for name, module in zip(ids, modules, strict=True)}


# A new experiment is a file here that defines EXPERIMENT, and its name in this table.
MODULES: dict[str, str] = _by_id(
    *(f"why_weight_decay.fig{number}" for number in range(1, 21)),
    "why_weight_decay.prop3",
    "why_weight_decay.signgd",
    "blog32f",
)
