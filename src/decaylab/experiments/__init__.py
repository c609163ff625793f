"""Every figure and study, found by id. The registry is the tuple at the end of this file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from decaylab.errors import unknown

if TYPE_CHECKING:
    from decaylab.experiments.spec import Experiment


def all_ids() -> tuple[str, ...]:
    """Return the id of every experiment, in the order in which they are shown."""
    return MODULES


def get(experiment_id: str) -> Experiment:
    """Return an experiment by its id.

    Raises:
        DecaylabError: There is none of that name; the message has near matches.
        ValueError: Its module declares another id than its own name.
    """
    if experiment_id not in MODULES:
        raise unknown("experiment", experiment_id, MODULES)
    experiment: Experiment = importlib.import_module(f"{__name__}.{experiment_id}").EXPERIMENT
    if experiment.id != experiment_id:
        raise ValueError(f"{experiment_id}.py declares the id {experiment.id!r}; it has to be the module's name")
    return experiment


def _without_repetition(modules: tuple[str, ...]) -> tuple[str, ...]:
    repeated = {name for name in modules if modules.count(name) > 1}
    if repeated:
        raise ValueError(f"experiment id {sorted(repeated)[0]!r} is there twice")
    return modules


# A new experiment is a file here that defines EXPERIMENT, and its name in this tuple.
MODULES: tuple[str, ...] = _without_repetition(
    (
        *("fig1", "fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "fig8", "fig9", "fig10"),
        *("fig11", "fig12", "fig13", "fig14", "fig15", "fig16", "fig17", "fig18", "fig19", "fig20"),
        *("prop3", "signgd", "blog32f"),
    )
)
