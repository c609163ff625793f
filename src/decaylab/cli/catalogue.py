"""``decaylab list``: every experiment, and how many of its runs the store has finished.

Not called list.py, because a submodule of that name would hide the builtin in its package.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import tyro

from decaylab import studies
from decaylab.cli.console import console
from decaylab.cli.json_output import print_json
from decaylab.config.identity import run_id
from decaylab.config.schema import AnyRun
from decaylab.experiments.spec import BUDGETS, Experiment
from decaylab.extras import missing_extra


def catalogue(
    store: str | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """List every experiment with its finished runs at each budget.

    Args:
        store: A path ending in .db or .sqlite, or a postgresql:// URL. Default: runs.db in the platform's data folder.
        as_json: Print JSON.
    """
    found = [studies.get(name) for name in studies.all_ids()]
    plans = {(e.id, budget): [spec.config for spec in e.runs(budget)] for e in found for budget in e.budgets}
    status = _status(store, {config for configs in plans.values() for config in configs})
    counts = {key: _count(configs, status) for key, configs in plans.items()}
    if as_json:
        print_json("list", {"experiments": [_as_data(e, counts) for e in found]})
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("id", "paper"):
        table.add_column(title, no_wrap=True)
    table.add_column("title", overflow="fold")
    for budget in BUDGETS:
        table.add_column(budget, justify="right", no_wrap=True)
    for e in found:
        cells = [_cell(counts.get((e.id, budget))) for budget in BUDGETS]
        table.add_row(e.id, e.paper, e.title, *cells)
    console().print(table)
    print(
        "Finished runs of all runs, by budget. `decaylab show ID` has the details, `decaylab reproduce ID` runs them."
    )


def _status(store: str | None, configs: set[AnyRun]) -> dict[AnyRun, str]:
    """Return the status of the runs that a store knows; nothing is made where there is no store yet."""
    from decaylab.store import address

    if store is None and not address.exists(None):
        return {}
    try:
        from decaylab.store.store import Store
    except ModuleNotFoundError as error:
        if store is not None:
            raise
        print(f"decaylab: finished runs are not counted: {missing_extra(error) or error}", file=sys.stderr)
        return {}
    runs = {run_id(config): config for config in configs}
    with Store(store, read_only=True) as database:
        return {runs[row.id]: row.status for row in database.rows(list(runs))}


def _count(configs: list[AnyRun], status: dict[AnyRun, str]) -> dict[str, int]:
    known = [status.get(config, "") for config in configs]
    finished = known.count("done") + known.count("diverged")
    return {"runs": len(configs), "finished": finished, "diverged": known.count("diverged")}


def _cell(count: dict[str, int] | None) -> str:
    return f"{count['finished']}/{count['runs']}" if count and count["runs"] else "–"


def _as_data(experiment: Experiment, counts: dict[tuple[str, str], dict[str, int]]) -> dict[str, Any]:
    return {
        "id": experiment.id,
        "title": experiment.title,
        "paper": experiment.paper,
        "question": experiment.question,
        "version": experiment.version,
        "budgets": {budget: counts[experiment.id, budget] for budget in experiment.budgets},
    }
