"""``decaylab train vision`` and ``decaylab train language``: one run from flags, or from a file."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence

from decaylab.cli.run_arguments import LanguageArguments, VisionArguments, Where, read_run, require_kind
from decaylab.cli.run_diagnosis import PREFIXES, diagnosis, too_strong
from decaylab.cli.sample import warn_of_lost
from decaylab.config.identity import run_id
from decaylab.config.schema import AnyRun
from decaylab.config.validation import check
from decaylab.errors import DecaylabError, printable
from decaylab.launch.backends.local import launch
from decaylab.launch.backends.torchrun import is_torchrun, train_together
from decaylab.launch.parent_run import has_begun, origin_is_there, require_origin
from decaylab.launch.preflight import preflight
from decaylab.launch.scheduler import Run
from decaylab.store.records import RunRow
from decaylab.store.store import Store
from decaylab.train.preflight.inputs import changed_data, with_content

_SHOWN = ("effective_lr", "tokens_per_second", "share_of_peak")
_USAGE = "say what to train: `decaylab train vision` or `decaylab train language`; each has --help"


_DESCRIPTION = (
    "Train one run. --config FILE.json takes what `decaylab show ID --json` prints (--pick ID chooses one), and "
    "--preset small|medium|gpt2 takes a size of language run; the flags below change settings on top of either. A "
    "finished run is not trained again; an interrupted one goes on. "
    "--init-from RUN@STEP or --init-from hf:FOLDER starts from other weights. Of a run's id the first characters are "
    "enough. torchrun's processes all train the same run."
)


_COMMANDS: dict[str, type[VisionArguments] | type[LanguageArguments]] = {
    "vision": VisionArguments,
    "language": LanguageArguments,
}


def train(arguments: Sequence[str]) -> int:
    """Train one run: ``train vision|language [--config FILE.json [--pick ID]] [--flags]``.

    ``--config`` takes what ``decaylab show --json`` prints, or one run of it; flags change settings on top of it. The
    run goes into the store like any other: finished, it is not trained again; interrupted, the same command goes on.
    """
    if not arguments:
        raise DecaylabError(_USAGE)
    if arguments[0] in ("-h", "--help"):
        print(f"usage: decaylab train vision|language [--config FILE.json [--pick ID]] [--flags]\n\n{_USAGE}")
        return 0
    name, rest = arguments[0], arguments[1:]
    require_kind(name)
    parsed = read_run(_COMMANDS[name], name, rest, prog=f"decaylab train {name}", description=_DESCRIPTION)
    return _train(parsed.run, parsed.where)


train.parses_itself = True  # type: ignore[attr-defined]
train.kinds = _COMMANDS  # type: ignore[attr-defined]


def _train(config: AnyRun, where: Where) -> int:
    check(config)
    if where.parallel != "ddp" and not is_torchrun():
        raise DecaylabError(
            f"--parallel {where.parallel} shares a language run's weights among torchrun's processes, and this is one "
            "by itself: leave it out, or start `torchrun --nproc-per-node=N -m decaylab train language ...`"
        )
    config = with_content(config, lambda line: print(f"decaylab: {line}", file=sys.stderr))
    if not is_torchrun() and (ended := _ended(config, where.store)) is not None:  # known without torch, in a second
        print("the run had ended before: nothing is trained", file=sys.stderr)
        return _close(ended, config, where.store)
    config = require_origin(config, where.store)
    preflight([config], where.store, where.device, processes=int(os.environ["WORLD_SIZE"]) if is_torchrun() else 1)
    if strong := too_strong(config):
        print(f"decaylab: {strong}", file=sys.stderr)
    run, begun = Run.of(config), has_begun(config, where.store)
    if run.needs and (begun or origin_is_there(config, where.store)):
        run = dataclasses.replace(run, needs=())
    from decaylab.train.preflight.data_fit import lost_in_texts

    if os.environ.get("RANK", "0") == "0":  # one of torchrun's processes speaks for all
        warn_of_lost(lost_in_texts(config))
    if is_torchrun():
        result = train_together(where.store, run, device=where.device, parallel=where.parallel)
        if result is not None:
            _print(result, config)
        return 1 if result is not None and result.status == "failed" else 0
    with Store(where.store) as store:
        report = launch(store.url, [run], workers=1, device=where.device)
        row = store.get(run.id)
    assert row is not None
    _close(row, config, where.store)
    return 130 if report.interrupted else 1 if report.failed else 0


def _ended(config: AnyRun, url: str | None) -> RunRow | None:
    """Return a run that a store knows as ended; what is not known yet is asked later, with reasons."""
    if (
        config.init_from is not None or config.decay.norms_from is not None
    ):  # its id may be that of other weights, which are looked up first
        return None
    try:
        with Store(url, read_only=True) as store:
            row = store.get(run_id(config))
            return row if row is not None and row.is_ended else None
    except DecaylabError:
        return None


def _close(row: RunRow, config: AnyRun, url: str | None) -> int:
    """Say how a run ended, and what decay did in it."""
    _print(row, config)
    with Store(url, read_only=True) as store:
        keys = [key for key in sorted(store.keys()) if key.startswith(PREFIXES)]
        said = diagnosis(config, store.table([row.id], keys), row.step) if keys and row.is_ended else ""
        folder = store.folder(row.id)
    if said:
        print("\n" + printable(said))
    if folder.exists():
        print(f"  files in {printable(str(folder))}", file=sys.stderr)
    return 0


def _print(row: RunRow, config: AnyRun) -> None:
    """Say how a run ended, with its last losses, its speed and what it made of its prompt."""
    reason = f" ({_one_line(row.reason)})" if row.reason else ""
    print(f"run {row.id}: {row.status}{reason}, {row.step} steps")
    if "spike" in row.summary and not row.reason:  # of a run that went on all the same
        print(f"  spike: {_one_line(row.summary['spike'])}")
    if "damaged" in row.summary:
        print(f"  {_one_line(row.summary['damaged'])}")
    for key in sorted(k for k in row.summary if k.split("/")[-1] in ("loss", "error", "gap") or k in _SHOWN):
        print(f"  {printable(key):<24} {row.summary[key]:.6g}")
    if "completion" in row.summary:
        print(f"  completion\n{printable(str(row.summary['completion']))}")
    for line in changed_data([(config, row.summary)]):
        print(f"decaylab: {line}", file=sys.stderr)


def _one_line(said: object) -> str:
    return printable(" ".join(str(said).split()))
