"""``decaylab show``: one experiment at one budget, its claims, its recipe and every setting of its runs."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro

from decaylab import studies
from decaylab.cli.console import console as wide_console
from decaylab.cli.json_output import print_json
from decaylab.experiments.config_tables import shared, varying
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Experiment

_COLUMNS = 7  # settings that a terminal has room for side by side


def show(
    experiment_id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")],
    budget: Literal["smoke", "mini", "gpu-hour", "paper"] = "mini",
    seeds: int | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Show an experiment: what it asks, what it claims, and the runs that decide.

    Args:
        experiment_id: Such as fig1; `decaylab list` shows them all. Or your own: path/to/study.py or package.module.
        budget: smoke takes seconds, mini minutes on a laptop, gpu-hour an hour a figure on one GPU (fig1, fig3, fig5,
            fig7), paper the paper's own sizes.
        seeds: Use only the first so many seeds of each setting, or more. Default: the experiment's own.
        as_json: Print JSON, with the whole configuration of every run; `decaylab train --config` takes it.
    """
    experiment = studies.get(experiment_id)
    specs = experiment.runs(budget, seeds)
    if as_json:
        print_json("show", _as_data(experiment, budget, specs))
        return
    _print(experiment, budget, specs)


def _as_data(experiment: Experiment, budget: str, specs: tuple[RunSpec, ...]) -> dict[str, object]:
    return {
        "id": experiment.id,
        "title": experiment.title,
        "paper": experiment.paper,
        "question": experiment.question,
        "version": experiment.version,
        "budget": budget,
        "recipe": experiment.recipe.get(budget, ""),
        "claims": [
            {"id": c.id, "sentence": c.sentence, "rule": getattr(c.check, "rule", ""), "tested_at": list(c.budgets)}
            for c in experiment.claims
        ],
        "runs": [{"id": s.id, "labels": dict(s.labels), "config": s.settings} for s in specs],
    }


def _print(experiment: Experiment, budget: str, specs: tuple[RunSpec, ...]) -> None:
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = wide_console()

    def indented(text: str) -> None:
        console.print(Padding(Text(text), (0, 0, 0, 2)))

    def table(*titles: str) -> Table:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(titles))
        for title in titles:
            made.add_column(title, overflow="fold")
        return made

    console.print(Text(f"{experiment.id} · {experiment.paper} · {budget} budget", style="dim"))
    console.print(Text(experiment.title, style="bold"))
    console.print(Text(experiment.question))
    console.print(Text("\nclaims", style="bold"))
    for claim in experiment.claims:
        where = "" if budget in claim.budgets else f" (not tested at {budget})"
        indented(f"{claim.id}: {claim.sentence}{where}")
    console.print(Text("\nrecipe", style="bold"))
    indented(experiment.recipe.get(budget, ""))
    if not specs:
        print("\nnothing is trained for it: it is computed when the page is drawn")
        return
    seeds = sorted({spec.labels["seed"] for spec in specs}, key=str)
    console.print(Text(f"\n{len(specs)} runs, seeds {', '.join(map(str, seeds))}", style="bold"))
    names, rows = varying(specs)
    short = [name.rsplit(".", 1)[-1] for name in names]
    titles = [name if short.count(last) > 1 else last for name, last in zip(names, short, strict=True)]
    if names and len(names) <= _COLUMNS:
        made = table(*titles)
        for row in rows:
            made.add_row(*row)
        console.print(made)
    else:
        for row in rows:
            indented(", ".join(f"{title} {value}" for title, value in zip(titles, row, strict=True)))
        console.print()
    console.print(Text("the same in all runs, where it is not the default", style="bold"))
    made = table("", "")
    for path, value, changed in shared(specs):
        if changed:
            made.add_row(path, value)
    console.print(made)
    print(f"`decaylab show {experiment.id} --budget {budget} --json` has every setting of every run.")
