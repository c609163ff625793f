"""``decaylab reproduce``: train what is missing, then draw the charts, judge the claims and write the page."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from decaylab import studies
from decaylab.cli.report import say_what_is_replaced
from decaylab.errors import DecaylabError, printable
from decaylab.experiments.results import Results
from decaylab.experiments.run_spec import RunSpec
from decaylab.experiments.spec import Experiment
from decaylab.files import require_folder
from decaylab.launch.backends.local import launch
from decaylab.launch.own_training import adapted
from decaylab.launch.preflight import preflight
from decaylab.launch.report import LaunchReport
from decaylab.launch.scheduler import Run
from decaylab.launch.worker import DEFAULT_TARGET
from decaylab.references import load
from decaylab.store.store import Store
from decaylab.train.preflight.inputs import changed_data

INTERRUPTED = 130


def reproduce(
    ids: Annotated[tuple[str, ...], tyro.conf.Positional],
    budget: Literal["smoke", "mini", "gpu-hour", "paper"] = "mini",
    store: str | None = None,
    out: Path = Path("report"),
    workers: int | None = None,
    seeds: int | None = None,
    device: str = "auto",
) -> int:
    """Reproduce experiments: train the runs that the store lacks, then write the page with charts and verdicts.

    Finished runs are never trained twice, also when figures share them. Interrupt with Ctrl-C and run the same command
    again to go on.

    Args:
        ids: Experiments, such as fig1 fig5; all for every one. `decaylab list` shows them. Also of your own:
            path/to/study.py or package.module with an EXPERIMENT.
        budget: smoke takes seconds, mini minutes on a laptop, gpu-hour an hour a figure on one GPU (fig1, fig3, fig5,
            fig7), paper the paper's own sizes.
        store: Database with the runs: a path or a postgresql:// URL. Default: in the platform's data folder.
        out: Folder for the page and the charts.
        workers: Runs trained at the same time. Default: chosen from the machine and the size of the runs.
        seeds: Use only the first so many seeds of each setting, or more. Default: the experiment's own.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    if not ids:
        raise DecaylabError("name at least one experiment, such as fig1; `decaylab list` shows them")
    if workers is not None and workers < 1:
        raise DecaylabError(f"--workers must be at least 1, not {workers}")
    every = ids == ("all",)
    chosen = studies.chosen(studies.all_ids() if every else ids)
    if every:
        chosen = [experiment for experiment in chosen if budget in experiment.budgets]
    plans = [(experiment, experiment.runs(budget, seeds)) for experiment in chosen]
    runs: dict[str, Run] = {}
    for experiment, plan in plans:
        for spec in plan:
            runs.setdefault(spec.id, _run(experiment.id, spec))
    for _, plan in plans:
        if plan and plan[0].trainer:  # is it there, and can it be called?
            adapted(load(plan[0].trainer))
    configs = [spec.config for _, plan in plans for spec in plan if not spec.trainer]
    preflight(configs, store, device)
    require_folder(out)
    say_what_is_replaced(out, [(experiment.id, budget) for experiment in chosen])
    with Store(store) as database:
        # Illustrations such as Fig. 10 are computed when they are drawn.
        report = LaunchReport()
        for trainer, several in _by_trainer(plans, runs).items():
            target = trainer or DEFAULT_TARGET
            report |= launch(database.url, several, workers=workers, device=device, target=target)
            if report.interrupted:
                break
        if report.interrupted:
            print("drawing the page of what has ended (Ctrl-C again to do without)", file=sys.stderr)
        from decaylab.reporting import build

        results = [(e, Results.from_store(plan, database, budget=budget)) for e, plan in plans]
        page = build(results, out)
    ended_with = [(spec, each.summaries.get(spec.id, {})) for _, each in results for spec in each.specs]
    ends = [(spec.config, summary) for spec, summary in ended_with if not spec.trainer]
    for line in changed_data(ends):
        print(f"decaylab: {line}", file=sys.stderr)
    print(printable(str(page.resolve())))
    return INTERRUPTED if report.interrupted else 1 if report.failed else 0


def _run(experiment: str, spec: RunSpec) -> Run:
    hidden = ("panel", "network", "share")  # they restate other labels
    labels = {name: value for name, value in spec.labels.items() if name not in hidden and not name.endswith("_value")}
    words = (f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in labels.items())
    label = f"{experiment}: {', '.join(words)}"
    if spec.trainer:
        return Run.own(spec.id, spec.settings, trainer=spec.trainer, label=label)
    return Run.of(spec.config, label=label)


def _by_trainer(plans: Sequence[tuple[Experiment, Sequence[RunSpec]]], runs: Mapping[str, Run]) -> dict[str, list[Run]]:
    """Return the runs by what trains them, decaylab's own loop first."""
    found: dict[str, dict[str, Run]] = {}
    for _, plan in sorted(plans, key=lambda pair: any(spec.trainer for spec in pair[1])):
        for spec in plan:
            found.setdefault(spec.trainer, {})[spec.id] = runs[spec.id]
    return {trainer: list(several.values()) for trainer, several in found.items()}
