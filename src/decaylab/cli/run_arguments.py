"""Settings of a run from a command line: a preset or a file, and flags on top of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from decaylab.cli.parse import parse
from decaylab.config.identity import from_dict, run_id
from decaylab.config.presets import preset
from decaylab.config.schema import FOREIGN, KINDS, AnyRun, InitFrom, LanguageRun, VisionRun, kind
from decaylab.decay.registry import TABLE, canonical
from decaylab.errors import DecaylabError, shown, unknown
from decaylab.serialization import json_fault
from decaylab.store.run_ids import whole_id


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where and how the run is trained; none of it changes the result."""

    store: str | None = None
    """Database for the run: a path or a postgresql:// URL. Default: that of DECAYLAB_STORE, or in the data folder."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: whole weights in each process, or a share of them (fully_shard)."""


@dataclass(frozen=True, kw_only=True)
class VisionArguments:
    """What `decaylab train vision` takes."""

    run: Annotated[VisionRun, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = field(default_factory=VisionRun)
    where: Annotated[Where, tyro.conf.arg(name="")] = field(default_factory=Where)


@dataclass(frozen=True, kw_only=True)
class LanguageArguments:
    """What `decaylab train language` takes."""

    run: Annotated[LanguageRun, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = field(default_factory=LanguageRun)
    where: Annotated[Where, tyro.conf.arg(name="")] = field(default_factory=Where)


def read_run(command: Any, name: str, arguments: Sequence[str], *, prog: str, description: str) -> Any:
    """Read the arguments of a command that takes a run's settings.

    Args:
        command: A dataclass with the run in its field ``run``.
        name: ``vision`` or ``language``.
        arguments: The words behind it.
        prog: What the command is called.
        description: For its help.

    Returns:
        The dataclass's instance.

    Raises:
        DecaylabError: The arguments, the file or the preset do not fit.
        SystemExit: After ``--help``.
    """
    rest = list(arguments)
    file, pick, size = take(rest, "--config"), take(rest, "--pick"), take(rest, "--preset")
    default: Any = command()
    if file is not None:
        if size is not None:
            raise DecaylabError("--preset and --config both say what the run is: give one of them")
        config = read_config(Path(file), pick)
        if kind(config) != name:
            raise DecaylabError(f"{file} holds a {kind(config)} run: use `{prog.rsplit(' ', 1)[0]} {kind(config)}`")
        default = dataclasses.replace(default, run=config)
    elif pick is not None:
        raise DecaylabError("--pick chooses a run of a file: give --config FILE.json too")
    elif size is not None:
        default = dataclasses.replace(default, run=preset(size, name))
    origin = take(rest, "--init-from")
    if origin is not None:
        default = _starting_from(default, origin)
    elif default.run.init_from is None and any(argument.startswith("--init-from.") for argument in rest):
        default = dataclasses.replace(default, run=dataclasses.replace(default.run, init_from=InitFrom(run="")))
    parsed = parse(command, rest, prog=prog, default=default, description=description)
    return dataclasses.replace(parsed, run=with_canonical_rule(parsed.run))


def with_canonical_rule(config: AnyRun) -> AnyRun:
    """Return a run whose rule has its name in the table, whichever published name it was given: it is one run."""
    rule = config.decay.rule
    if rule.replace("-", "_") in TABLE or canonical(rule) == rule:
        return config
    return dataclasses.replace(config, decay=dataclasses.replace(config.decay, rule=canonical(rule)))


def take(arguments: list[str], flag: str) -> str | None:
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


def read_config(path: Path, pick: str | None) -> AnyRun:
    """Read one run from a file: its settings, or the output of ``show --json`` with the run's id.

    Raises:
        DecaylabError: The file cannot be read, or holds no run, or several and none is picked.
    """
    content = _read_json(path)
    runs = content.get("runs") if isinstance(content, dict) else content
    entries = runs if isinstance(runs, list) else [content]
    if not entries or not all(isinstance(e, dict) and isinstance(e.get("config", e), dict) for e in entries):
        raise DecaylabError(f"{path} holds no run; expected what `decaylab show ID --json` prints")
    try:
        by_id = {str(run.get("id") or run_id(from_dict(_settings(run)))): run for run in entries}
        if pick is None and len(by_id) > 1:
            raise DecaylabError(f"it holds {len(by_id)} runs: choose one with --pick ID, such as {next(iter(by_id))}")
        run = by_id[whole_id(pick, by_id)] if pick is not None else next(iter(by_id.values()))
        return from_dict(_settings(run))
    except DecaylabError as error:
        raise DecaylabError(f"{path}: {error}") from error


def _settings(run: dict[str, Any]) -> dict[str, Any]:
    settings = dict(run.get("config", run))
    settings.pop("schema", None)
    return settings


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise DecaylabError(f"there is no file {path}") from None
    except OSError as error:
        raise DecaylabError(f"{path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise DecaylabError(f"{path} is nested too deeply to be a run of `decaylab show ID --json`") from None
    except ValueError as error:  # not JSON, not UTF-8, or a number of thousands of digits
        what = json_fault(error)
        raise DecaylabError(f"{path} is not JSON ({what}); expected what `decaylab show ID --json` prints") from None


def _starting_from(default: Any, origin: str) -> Any:
    """Set ``init_from`` from RUN@STEP or hf:FOLDER."""
    if origin.startswith(FOREIGN):
        source = InitFrom(run=origin)
    else:
        run, _, step = origin.partition("@")
        if not step.isdecimal():
            raise DecaylabError(
                f"--init-from {shown(origin, quoted=False)}: expected RUN@STEP, such as 0c74387dd31d7755@200, "
                "or hf:FOLDER"
            )
        source = InitFrom(run=run, step=int(step))
    return dataclasses.replace(default, run=dataclasses.replace(default.run, init_from=source))


def require_kind(name: str) -> None:
    """Return for a kind of run.

    Raises:
        DecaylabError: It is none.
    """
    if name not in KINDS:
        raise unknown("kind of run", name, KINDS)
