"""``decaylab report``: draw the page again from the store alone; nothing is trained."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from decaylab import studies
from decaylab.errors import DecaylabError, printable

if TYPE_CHECKING:
    from decaylab.experiments.spec import Experiment
    from decaylab.store.store import Store


def report(
    ids: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    budget: Literal["smoke", "mini", "gpu-hour", "paper"] | None = None,
    store: str | None = None,
    out: Path = Path("report"),
    seeds: int | None = None,
    format: tuple[Literal["svg", "pdf", "png"], ...] = ("svg",),
    title: bool = True,
) -> None:
    """Draw charts, verdicts and the page from what the store has.

    Args:
        ids: Experiments, such as fig1 fig5. Default: every one with runs in the store.
        budget: smoke, mini, gpu-hour or paper. Default: for each experiment the largest one whose runs are all there,
            or else the largest with any.
        store: A path ending in .db or .sqlite, or a postgresql:// URL. Default: runs.db in the platform's data folder.
        out: Folder for the page and the charts.
        seeds: Use only the first so many seeds of each setting, or more. Default: the experiment's own.
        format: Of the charts beside the page: svg, pdf, png, or several.
        title: Whether those charts have their title; --no-title for a paper, whose caption says it.
    """
    chosen = studies.chosen(ids or studies.all_ids())
    from decaylab.experiments.results import Results
    from decaylab.reporting import build
    from decaylab.store.store import Store

    with Store(store, read_only=True) as database:
        items = []
        for experiment in chosen:
            own = budget or _best_budget(experiment, database)
            if own in experiment.budgets and any(_begun(experiment, own, database)):
                results = Results.from_store(experiment.runs(own, seeds), database, budget=own)
                items.append((experiment, results))
            elif ids:
                missing = f"{database.label} has no run of {experiment.id}" + (f" at budget {budget}" if budget else "")
                flags = f" --budget {budget}" if budget else ""
                raise DecaylabError(f"{missing}; `decaylab reproduce {studies.name_of(experiment)}{flags}` trains them")
        if not ids and not any(results.specs for _, results in items):
            raise DecaylabError(f"{database.label} has no run of any experiment; `decaylab reproduce fig1` trains some")
        say_what_is_replaced(out, [(experiment.id, results.budget) for experiment, results in items])
        page = build(items, out, formats=format, titles=title)
    print(printable(str(page.resolve())))


def say_what_is_replaced(out: Path, experiments: Sequence[tuple[str, str]]) -> None:
    """Say on the standard error that a folder's page of other experiments is replaced, where it is."""
    from decaylab.reporting.manifest import replaced

    if (said := replaced(out, experiments)) is not None:
        print(f"decaylab: {printable(said)}", file=sys.stderr)


def _best_budget(experiment: Experiment, store: Store) -> str:
    """Return the largest budget of which every run is there, or the largest with any run; empty without one."""
    if "mini" in experiment.budgets and not experiment.runs("mini"):
        return "mini"
    there = {budget: _begun(experiment, budget, store) for budget in reversed(experiment.budgets)}
    complete = [budget for budget, flags in there.items() if all(flags)]
    started = [budget for budget, flags in there.items() if any(flags)]
    return next(iter(complete + started), "")


def _begun(experiment: Experiment, budget: str, store: Store) -> list[bool]:
    """Tell of each run of a plan whether the store has records of it that can be drawn."""
    runs = [spec.id for spec in experiment.runs(budget)]
    if not runs:
        return [True]  # computed when it is drawn
    rows = {row.id: row for row in store.rows(runs)}
    return [run in rows and (rows[run].is_ended or rows[run].step > 0) for run in runs]
