"""``decaylab sweep``: train a grid of settings with several seeds, and answer which of them are better."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from decaylab.cli.json_output import print_json
from decaylab.cli.paired_table import print_table
from decaylab.cli.report import say_what_is_replaced
from decaylab.cli.run_arguments import read_run, require_kind, with_canonical_rule
from decaylab.config.schema import AnyRun, LanguageRun, VisionRun
from decaylab.errors import DecaylabError, printable
from decaylab.experiments import sweep as sweeps
from decaylab.experiments.paired import compare
from decaylab.experiments.quantity import final
from decaylab.experiments.results import Results
from decaylab.experiments.run_spec import RunSpec
from decaylab.files import require_folder
from decaylab.launch.backends.local import launch
from decaylab.launch.parent_run import origin_is_there, require_origin
from decaylab.launch.preflight import preflight
from decaylab.launch.scheduler import Run
from decaylab.store.store import Store
from decaylab.train.preflight.inputs import with_content

_METRICS = {"vision": "test/error", "language": "val/loss"}
_USAGE = (
    "say what to sweep: `decaylab sweep language --vary decay.weight_decay=0,0.1,1 --seeds 3`, or `decaylab sweep "
    "vision ...`; each has --help"
)
_DESCRIPTION = (
    "Train every combination of the settings that --vary names, with several seeds, as far as the store lacks them; "
    "write a page, and print the paired differences to the first combination with a sentence that answers. --config "
    "FILE.json (--pick ID), --preset small|medium|gpt2 and the flags below say what does not vary. Interrupt with "
    "Ctrl-C and run the same command again to go on."
)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What varies, and where it goes."""

    vary: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KEY=V,V")] = ()
    """A setting and its values, such as decay.weight_decay=0,0.1,1; again for another: every combination is trained."""
    seeds: int = 3
    """Seeds of each combination, from the run's own seed on. Differences are taken within a seed."""
    baseline: str | None = None
    """The combination that the others are compared with, as the table names it. Default: the first."""
    metric: str | None = None
    """What is compared at the end of the runs. Default: val/loss, or test/error of vision."""
    highest: bool = False
    """High values of the metric are good."""
    margin: float | None = None
    """Differences within so much of 0 (in nats, or percentage points of an error) make two combinations alike."""
    store: str | None = None
    """Database for the runs: a path or a postgresql:// URL. Default: that of DECAYLAB_STORE, or in the data folder."""
    out: Path = Path("sweep")
    """Folder for the page and the charts."""
    workers: int | None = None
    """Runs trained at the same time. Default: chosen from the machine and the size of the runs."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    json: bool = False
    """Print JSON instead of the table."""


@dataclass(frozen=True, kw_only=True)
class VisionSweep:
    """What `decaylab sweep vision` takes."""

    sweep: Annotated[Sweep, tyro.conf.arg(name="")] = field(default_factory=Sweep)
    run: Annotated[VisionRun, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = field(default_factory=VisionRun)


@dataclass(frozen=True, kw_only=True)
class LanguageSweep:
    """What `decaylab sweep language` takes."""

    sweep: Annotated[Sweep, tyro.conf.arg(name="")] = field(default_factory=Sweep)
    run: Annotated[LanguageRun, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = field(default_factory=LanguageRun)


_COMMANDS: dict[str, type[VisionSweep] | type[LanguageSweep]] = {"vision": VisionSweep, "language": LanguageSweep}


def sweep(arguments: Sequence[str]) -> int:
    """Train a grid of settings with several seeds: ``sweep vision|language --vary KEY=V,V``; say which are better."""
    if not arguments:
        raise DecaylabError(_USAGE)
    if arguments[0] in ("-h", "--help"):
        print(f"usage: decaylab sweep vision|language --vary KEY=V,V [--seeds N] [--flags]\n\n{_USAGE}")
        return 0
    name, rest = arguments[0], arguments[1:]
    require_kind(name)
    parsed = read_run(_COMMANDS[name], name, rest, prog=f"decaylab sweep {name}", description=_DESCRIPTION)
    command = shlex.join(["decaylab", "sweep", *arguments])
    return _sweep(parsed.run, parsed.sweep, parsed.sweep.metric or _METRICS[name], command)


sweep.parses_itself = True  # type: ignore[attr-defined]
sweep.kinds = _COMMANDS  # type: ignore[attr-defined]


def _sweep(base: AnyRun, options: Sweep, metric: str, command: str) -> int:
    if options.workers is not None and options.workers < 1:
        raise DecaylabError(f"--workers must be at least 1, not {options.workers}")
    if options.margin is not None and not options.margin > 0:
        raise DecaylabError(f"--margin must be above 0, not {options.margin}")
    if base.init_from is not None:
        base = require_origin(base, options.store)
    varied = sweeps.axes(base, options.vary)
    specs = sweeps.plan(base, varied, options.seeds)
    told: set[str] = set()
    specs = tuple(dataclasses.replace(spec, config=_whole(spec.config, told)) for spec in specs)
    settings = sweeps.settings(specs, varied)
    names = [setting.name for setting in settings]
    if options.baseline is not None and options.baseline not in names:
        raise DecaylabError(f"--baseline {options.baseline} is not among the combinations: {', '.join(names)}")
    preflight([spec.config for spec in specs], options.store, options.device)
    require_folder(options.out)
    say_what_is_replaced(options.out, [("sweep", "mini")])
    with Store(options.store) as store:
        runs = [_run(spec, list(sweeps.labels(varied).values()), options.store) for spec in specs]
        report = launch(store.url, runs, workers=options.workers, device=options.device)
        if report.interrupted:
            print("drawing the page of what has ended (Ctrl-C again to do without)", file=sys.stderr)
        results = Results.from_store(specs, store, budget="mini")
        if metric not in (known := store.keys()):
            near = ", ".join(key for key in known if key.startswith(("val/", "test/", "train/")))
            raise DecaylabError(f"--metric {metric} was not recorded: known are {near}, and others")
        table = compare(
            results,
            final(metric),
            settings,
            baseline=options.baseline,
            margin=options.margin,
            highest=options.highest,
            what=next(iter(varied)) if len(varied) == 1 else "",
        )
        from decaylab.reporting import build

        made = sweeps.experiment(base, varied, specs, table, metric=metric, command=command)
        page = build([(made, results)], options.out)
    if options.json:
        print_json("sweep", {"metric": metric, "baseline": table.baseline, "rows": table.to_dicts(),
                             "answer": table.sentence, "page": str(page.resolve())})  # fmt: skip
    else:
        print_table(table)
        print(printable(str(page.resolve())))
    return 130 if report.interrupted else 1 if report.failed else 0


def _run(spec: RunSpec, names: Sequence[str], url: str | None) -> Run:
    run = Run.of(spec.config, label=f"{sweeps.setting_name(spec, names)}, seed {spec.labels['seed']}")
    if run.needs and origin_is_there(spec.config, url):  # the weights that it starts from lie in the store
        run = dataclasses.replace(run, needs=())
    return run


def _whole(config: AnyRun, told: set[str]) -> AnyRun:
    """Return a run's settings as they make its id: the rule by its name in the table, files by their content."""

    def report(line: str) -> None:
        if line not in told:
            told.add(line)
            print(f"decaylab: {printable(line)}", file=sys.stderr)

    return with_content(with_canonical_rule(config), report)
