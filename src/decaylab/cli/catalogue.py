"""``decaylab list``: every experiment, and how many of its runs the store has finished.

Not called list.py, because a submodule of that name would hide the builtin in its package.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from decaylab import studies
from decaylab.cli.console import console
from decaylab.cli.json_output import print_json
from decaylab.errors import DecaylabError
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import BUDGETS, Experiment
from decaylab.extras import missing_extra
from decaylab.references import plugins


def catalogue(
    store: str | None = None,
    own: Annotated[tuple[str, ...], tyro.conf.arg(name="from")] = (),
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """List every experiment with its finished runs at each budget.

    Args:
        store: A path ending in .db or .sqlite, or a postgresql:// URL. Default: runs.db in the platform's data folder.
        own: Experiments of your own too: path/to/study.py or package.module with an EXPERIMENT.
        as_json: Print JSON.
    """
    found = studies.chosen([*studies.all_ids(), *_plugins(), *own])
    plans = {(e.id, budget): e.runs(budget) for e in found for budget in e.budgets}
    status = _status(store, [spec for specs in plans.values() for spec in specs])
    counts = {key: _count(specs, status) for key, specs in plans.items()}
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


def _plugins() -> list[str]:
    """Return the experiments of installed packages; one that cannot be loaded is told and left out."""
    found = []
    for name in plugins("experiment"):
        try:
            studies.get(name)
            found.append(name)
        except DecaylabError as error:
            print(f"decaylab: the plugin {name} is left out: {error}", file=sys.stderr)
    return found


def _status(store: str | None, specs: Sequence[RunSpec]) -> dict[str, str]:
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
    with Store(store, read_only=True) as database:
        return {row.id: row.status for row in database.rows(list({spec.id: None for spec in specs}))}


def _count(specs: Sequence[RunSpec], status: dict[str, str]) -> dict[str, int]:
    known = [status.get(spec.id, "") for spec in specs] if status else []
    finished = known.count("done") + known.count("diverged")
    return {"runs": len(specs), "finished": finished, "diverged": known.count("diverged")}


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
