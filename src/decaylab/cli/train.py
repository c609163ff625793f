"""``decaylab train vision`` and ``decaylab train language``: one run from flags, or from a file."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from decaylab.cli.parse import parse
from decaylab.cli.sample import warn_of_lost
from decaylab.config.identity import from_dict, run_id
from decaylab.config.schema import FOREIGN, KINDS, AnyRun, InitFrom, LanguageRun, VisionRun, kind
from decaylab.config.validation import check, check_optimizer
from decaylab.errors import DecaylabError, unknown
from decaylab.launch.backends.local import launch
from decaylab.launch.backends.torchrun import is_torchrun, train_together
from decaylab.launch.devices import require_compiler, require_device
from decaylab.launch.parent_run import has_begun, has_ended, origin_is_there, require_origin
from decaylab.launch.scheduler import Run
from decaylab.store.records import RunRow
from decaylab.store.run_ids import whole_id
from decaylab.store.store import Store
from decaylab.train.preflight.datasets import require_data
from decaylab.train.preflight.held_out_text import changed

_SHOWN = ("effective_lr", "tokens_per_second", "share_of_peak")
_USAGE = "say what to train: `decaylab train vision` or `decaylab train language`; each has --help"


_DESCRIPTION = (
    "Train one run. --config FILE.json takes what `decaylab show ID --json` prints (--pick ID chooses one), and "
    "the flags below change settings on top of it. A finished run is not trained again; an interrupted one goes on. "
    "--init-from RUN@STEP or --init-from hf:FOLDER starts from other weights. Of a run's id the first characters are "
    "enough. torchrun's processes all train the same run."
)


@dataclass(frozen=True, kw_only=True)
class _Where:
    """Where and how the run is trained; none of it changes the result."""

    store: str | None = None
    """Database for the run: a path or a postgresql:// URL. Default: in the platform's data folder."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: whole weights in each process, or a share of them (fully_shard)."""


@dataclass(frozen=True, kw_only=True)
class _Vision:
    run: Annotated[VisionRun, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = field(default_factory=VisionRun)
    where: Annotated[_Where, tyro.conf.arg(name="")] = field(default_factory=_Where)


@dataclass(frozen=True, kw_only=True)
class _Language:
    run: Annotated[LanguageRun, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = field(default_factory=LanguageRun)
    where: Annotated[_Where, tyro.conf.arg(name="")] = field(default_factory=_Where)


_COMMANDS: dict[str, type[_Vision] | type[_Language]] = {"vision": _Vision, "language": _Language}


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
    name, rest = arguments[0], list(arguments[1:])
    if name not in _COMMANDS:
        raise unknown("kind of run", name, KINDS)
    file, pick = _take(rest, "--config"), _take(rest, "--pick")
    command = _COMMANDS[name]
    default: Any = command()
    if file is not None:
        config = _read(Path(file), pick)
        if kind(config) != name:
            raise DecaylabError(f"{file} holds a {kind(config)} run: use `decaylab train {kind(config)}`")
        default = dataclasses.replace(default, run=config)
    elif pick is not None:
        raise DecaylabError("--pick chooses a run of a file: give --config FILE.json too")
    origin = _take(rest, "--init-from")
    if origin is not None:
        default = _starting_from(default, origin)
    elif default.run.init_from is None and any(argument.startswith("--init-from.") for argument in rest):
        default = dataclasses.replace(default, run=dataclasses.replace(default.run, init_from=InitFrom(run="")))
    parsed = parse(command, rest, prog=f"decaylab train {name}", default=default, description=_DESCRIPTION)
    return _train(parsed.run, parsed.where)


train.parses_itself = True  # type: ignore[attr-defined]
train.kinds = _COMMANDS  # type: ignore[attr-defined]


def _starting_from(default: Any, origin: str) -> Any:
    """Set ``init_from`` from RUN@STEP or hf:FOLDER."""
    if origin.startswith(FOREIGN):
        source = InitFrom(run=origin)
    else:
        run, _, step = origin.partition("@")
        if not step.isdecimal():
            raise DecaylabError(f"--init-from {origin}: expected RUN@STEP, such as 0c74387dd31d7755@200, or hf:FOLDER")
        source = InitFrom(run=run, step=int(step))
    return dataclasses.replace(default, run=dataclasses.replace(default.run, init_from=source))


def _train(config: AnyRun, where: _Where) -> int:
    check(config)
    if where.parallel != "ddp" and not is_torchrun():
        raise DecaylabError(
            f"--parallel {where.parallel} shares a language run's weights among torchrun's processes, and this is one "
            "by itself: leave it out, or start `torchrun --nproc-per-node=N -m decaylab train language ...`"
        )
    require_device(where.device)
    require_data([config])
    from decaylab.train.preflight.components import require_names
    from decaylab.train.preflight.data_fit import (  # torch, which a help text should not wait for
        lost_in_texts,
        require_fit,
    )

    require_names(config)
    config = require_origin(config, where.store)
    run, begun = Run.of(config), has_begun(config, where.store)
    if run.needs and (begun or origin_is_there(config, where.store)):
        run = dataclasses.replace(run, needs=())
    if not has_ended(run.id, where.store):
        check_optimizer(config)
        if config.compile:
            require_compiler(where.device)
        fitted = dataclasses.replace(config, init_from=None) if begun else config
        require_fit(fitted, where.device, processes=int(os.environ["WORLD_SIZE"]) if is_torchrun() else 1)
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
        folder = store.folder(run.id)
    assert row is not None
    _print(row, config)
    if folder.exists():
        print(f"  files in {folder}", file=sys.stderr)
    return 130 if report.interrupted else 1 if report.failed else 0


def _print(row: RunRow, config: AnyRun) -> None:
    """Say how a run ended, with its last losses, its speed and what it made of its prompt."""
    print(f"run {row.id}: {row.status}{f' ({row.reason})' if row.reason else ''}, {row.step} steps")
    if "spike" in row.summary and not row.reason:  # of a run that went on all the same
        print(f"  spike: {row.summary['spike']}")
    if "damaged" in row.summary:
        print(f"  {row.summary['damaged']}")
    for key in sorted(k for k in row.summary if k.split("/")[-1] in ("loss", "error", "gap") or k in _SHOWN):
        print(f"  {key:<24} {row.summary[key]:.6g}")
    if "completion" in row.summary:
        print(f"  completion\n{row.summary['completion']}")
    if (warning := changed(config, row.summary)) is not None:
        print(f"decaylab: {warning}", file=sys.stderr)


def _take(arguments: list[str], flag: str) -> str | None:
    """Take a flag and its value out of the arguments."""
    for position, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            del arguments[position]
            return argument.partition("=")[2]
        if argument == flag:
            if position + 1 == len(arguments):
                raise DecaylabError(f"{flag} needs a value")
            value = arguments[position + 1]
            del arguments[position : position + 2]
            return value
    return None


def _read(path: Path, pick: str | None) -> AnyRun:
    """Read one run from a file: its settings, or the output of ``show --json`` with the run's id."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise DecaylabError(f"there is no file {path}") from None
    except OSError as error:
        raise DecaylabError(f"{path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DecaylabError(f"{path} is not JSON ({error}); expected what `decaylab show ID --json` prints") from None
    runs = content.get("runs") if isinstance(content, dict) else content
    entries = runs if isinstance(runs, list) else [content]
    if not entries or not all(isinstance(e, dict) and isinstance(e.get("config", e), dict) for e in entries):
        raise DecaylabError(f"{path} holds no run; expected what `decaylab show ID --json` prints")
    try:
        by_id = {str(run.get("id") or run_id(from_dict(run.get("config", run)))): run for run in entries}
        if pick is None and len(by_id) > 1:
            raise DecaylabError(f"it holds {len(by_id)} runs: choose one with --pick ID, such as {next(iter(by_id))}")
        run = by_id[whole_id(pick, by_id)] if pick is not None else next(iter(by_id.values()))
        return from_dict(run.get("config", run))
    except DecaylabError as error:
        raise DecaylabError(f"{path}: {error}") from error
