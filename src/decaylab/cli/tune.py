"""``decaylab tune``: the weight decay of one's own training, from complete short runs of its script."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from decaylab.cli.parse import parse
from decaylab.errors import DecaylabError
from decaylab.quantities import parse_count

INTERRUPTED = 130
Text = Annotated[str | None, tyro.conf.arg(help_behavior_hint="")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]


def tune(arguments: Sequence[str]) -> int:
    """Split the training command off behind ``--``, and read the options before it."""
    words = list(arguments)
    at = words.index("--") if "--" in words else len(words)
    options, command = words[:at], words[at + 1 :]
    return int(parse(_options, options, prog="decaylab tune")()(command))


def _options(
    *,
    steps: str,
    lr: str,
    weight_decay: float | None = None,
    fix_weight_decay: Flag = False,
    budget: str = "6x",
    seeds: int = 3,
    schedule: str = "constant",
    epsilon: float | None = None,
    confirm: int = 0,
    metric: str = "loss",
    metric_from: Text = None,
    metric_regex: Text = None,
    maximize: Flag = False,
    target: Text = None,
    timeout: float | None = None,
    workers: int | None = None,
    device: str = "auto",
    name: str = "tune",
    storage: Text = None,
    store: Text = None,
    out: Path | None = None,
    dry_run: Flag = False,
    json: Flag = False,
) -> functools.partial[int]:
    """Find the weight decay of a training from complete short runs of its own script, with a 95 % interval.

    decaylab tune --steps 33000 --lr 4e-4 -- python train.py --lr {lr} --wd {weight_decay} --steps {steps} --seed {seed}

    The script trains a whole schedule of {steps} steps and prints its loss as JSON at the end: {"loss": 2.31}. A search
    that was stopped goes on with the same command.

    Args:
        steps: Length of the full run.
        lr: Its peak learning rate; or a range to search too, such as 1e-4..1e-2.
        weight_decay: Its present weight decay: always tried, and what a confirmation compares with.
        fix_weight_decay: Search the learning rate alone, at the weight decay given.
        budget: Full runs that the search may cost.
        seeds: Seeds of every setting.
        schedule: Of the learning rate: constant, cosine (to a tenth), linear (to 0), or its mean over its peak.
        epsilon: Differences of the metric below this count as none. Default: half a per cent of it.
        confirm: Seeds of a comparison with the present weight decay at full length, after the search.
        metric: Name of the metric: a key, a column or a tag.
        metric_from: Where it is, if not in the output: a file (.json, .jsonl, .csv), tensorboard:FOLDER or mlflow:URI;
            {out} stands for the trial's own folder.
        metric_regex: Regular expression over the output, with a group around the number.
        maximize: High values of the metric are good.
        target: package.module:function to call instead of a command.
        timeout: Seconds that a trial may take.
        workers: Trials at the same time. Default: one, or one a GPU.
        device: auto, cpu, cuda or cuda:N.
        name: Of the study; another name starts another one.
        storage: Optuna's study: a journal file or a database's URL. Default: beside the store.
        store: decaylab's store, for the trials: a path or a postgresql:// URL. Default: in the platform's data folder.
        out: Folder for a page with the charts.
        dry_run: Print the plan and its cost, and train nothing.
        json: Print the answer as JSON (schema 1, see the docs).
    """
    return functools.partial(
        _tune,
        settings={
            "steps": int(parse_count(steps, "steps", "steps")),
            "lr": _rate(lr),
            "weight_decay": weight_decay,
            "tune_weight_decay": not fix_weight_decay,
            "budget": _budget(budget),
            "seeds": seeds,
            "schedule": schedule,
            "epsilon": epsilon,
            "confirm": confirm,
        },
        metric=(metric, metric_from, metric_regex, maximize),
        target=target,
        where={"timeout": timeout, "workers": workers, "device": device, "name": name, "store": store},
        storage=storage,
        out=out,
        dry_run=dry_run,
        json=json,
    )


def _tune(
    words: Sequence[str],
    *,
    settings: dict[str, object],
    metric: tuple[str, str | None, str | None, bool],
    target: str | None,
    where: dict[str, object],
    storage: str | None,
    out: Path | None,
    dry_run: bool,
    json: bool,
) -> int:
    from decaylab.files import require_folder
    from decaylab.tuning.metric import Metric
    from decaylab.tuning.plan import Plan
    from decaylab.tuning.search import tune as search
    from decaylab.tuning.trials import Interrupted

    if words and target is not None:
        raise DecaylabError("give a command behind -- or a function with --target, not both")
    name, place, pattern, maximize = metric
    read = Metric.parse(name, place, pattern, maximize=maximize)
    plan = Plan(**settings)  # type: ignore[arg-type]  # checked above, name by name
    if dry_run:
        print("\n".join(plan.lines()))
        return 0
    if out is not None:
        require_folder(out)

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    try:
        answer = search(
            target if target is not None else list(words),
            metric=read,
            storage=storage if storage is not None else _storage(where),
            say=say,
            progress=sys.stderr.isatty(),
            **settings,  # type: ignore[arg-type]
            **where,  # type: ignore[arg-type]
        )
    except Interrupted:
        say("stopped before all trials had ended; the same command goes on from there")
        return INTERRUPTED
    print(answer.as_json() if json else "\n".join(answer.lines()))
    if out is not None:
        from decaylab.tuning.page import write

        say(str(write(answer, out, name=name).resolve()))
    return 1 if answer.verdict == "reaches no weight" else 0


def _storage(where: dict[str, object]) -> str | None:
    """Return the journal beside a store that is a file; None for the default place."""
    store = where["store"]
    if store is None or "://" in str(store):
        return None
    return str(Path(str(store)).with_suffix("")) + f"-{where['name']}.journal"


def _rate(text: str) -> float | tuple[float, float]:
    parts = text.split("..")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) == 1:
        return values[0]
    if len(values) == 2:
        return values[0], values[1]
    raise DecaylabError(f"--lr is a learning rate, or a range such as 1e-4..1e-2, not {text[:40]!r}")


def _budget(text: str) -> float:
    try:
        return float(text.removesuffix("x"))
    except ValueError:
        raise DecaylabError(f"--budget is a number of full runs such as 6x, not {text[:40]!r}") from None


tune.parses_itself = True  # type: ignore[attr-defined]
