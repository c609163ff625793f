"""``decaylab probe``: measure a checkpoint, or any model, with the probes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from decaylab.cli.run_folder import run_folder
from decaylab.cli.target import built
from decaylab.errors import DecaylabError
from decaylab.launch.devices import require_device
from decaylab.probes.registry import PROBES, rows

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


def probe(
    checkpoint: Annotated[str | None, tyro.conf.Positional] = None,
    /,
    *,
    probes: tuple[str, ...] = ("norms",),
    load: str | None = None,
    at: str = "iterate",
    points: int = 1000,
    device: str = "auto",
    seed: int = 0,
    store: str | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Measure a model by itself. Without a checkpoint and without --load: list the probes.

    Args:
        checkpoint: A run's id, or the first characters of it, or its folder: its latest weights are measured; or the
            folder of one checkpoint or snapshot. With --load a file of weights for that model (.safetensors, or one of
            torch.save, which is read without executing anything).
        probes: What to measure; every key that comes out is explained in the docs.
        load: Your own model, as package.module:function. The function takes no arguments and returns a model, a pair
            (model, optimizer), or a dict with model and any of loss_fn, batches, optimizer. loss_fn(model, batch) is
            the mean loss of a batch.
        at: Which weights of a checkpoint: iterate, or an average of the run such as ema0.999 or uniform.
        points: Training points for probes that run the model of a checkpoint.
        device: auto, cpu, cuda, cuda:N or mps.
        seed: Seed of probes that draw random vectors.
        store: Where the run is. Default: runs.db in the platform's data folder.
        as_json: Print JSON instead of a table.
    """
    if checkpoint is None and load is None:
        _print_probes(as_json)
        return
    chosen = rows(probes)
    if points < 1 or not -(2**63) <= seed < 2**63:
        raise DecaylabError("--points must be at least 1, and --seed below 2^63")
    if load is not None:
        subject = _loaded(load, None if checkpoint is None else Path(checkpoint), device)
    else:
        needs = frozenset().union(*(row.needs for row in chosen))
        subject = _trained(run_folder(str(checkpoint), store), at, points, device, needs)

    from decaylab.probes import measure

    found: dict[str, float] = {}
    for row in chosen:
        found |= measure(
            row.name, subject.model, subject.batches, subject.loss_fn, seed=seed, optimizer=subject.optimizer
        )
    _print(found, as_json)


@dataclass(frozen=True)
class _Subject:
    """What is measured."""

    model: nn.Module
    loss_fn: Any = None
    batches: Sequence[Any] = ()
    optimizer: Optimizer | None = None


def _device(name: str) -> Any:
    import torch

    require_device(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _loaded(target: str, weights: Path | None, device: str) -> _Subject:
    from torch import nn

    from decaylab.train.checkpoints.files import load_model_tensors

    found = built(target)
    if isinstance(found, Mapping):
        strange = set(found) - {"model", "loss_fn", "batches", "optimizer"}
        if strange or "model" not in found:
            raise DecaylabError(
                f"{target} gave the keys {', '.join(found)}: model, loss_fn, batches, optimizer are known"
            )
        subject = _Subject(**found)
    elif isinstance(found, tuple) and len(found) == 2:
        subject = _Subject(found[0], optimizer=found[1])
    else:
        subject = _Subject(found)
    if not isinstance(subject.model, nn.Module):
        raise DecaylabError(f"{target} gave {type(subject.model).__name__} where a model is needed")
    if weights is not None:
        load_model_tensors(subject.model, _weights(weights), str(weights))
    # An optimizer holds the parameters themselves, and moving a module keeps them.
    return replace(subject, model=subject.model.to(_device(device)))


def _weights(path: Path) -> dict[str, Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise DecaylabError(f"there is no file {path}") from None
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise DecaylabError(f"{path} cannot be read as weights: {str(error).splitlines()[0]}") from None
    except Exception as error:  # torch's refusal to unpickle code is an exception of its own
        what = type(error).__name__
        raise DecaylabError(f"{path} is refused: it is damaged, or holds more than tensors ({what})") from None
    tensors = found.get("model", found) if isinstance(found, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise DecaylabError(f"{path} does not hold a state dict of tensors")
    return tensors


def _trained(folder: Path, at: str, points: int, device: str, needs: frozenset[str]) -> _Subject:
    from decaylab.train.build import stepper
    from decaylab.train.checkpoints.files import load_config, load_model_tensors, load_state, load_weights
    from decaylab.train.checkpoints.load_model import newest_weights
    from decaylab.train.distributed import Processes
    from decaylab.train.tasks import build_task

    try:
        folder = newest_weights(folder)
    except DecaylabError as error:
        raise DecaylabError(f"there are no weights in {folder}: a run keeps them with --snapshots-every") from error
    config = load_config(folder)
    place = _device(device)
    task = build_task(config, place, Processes(device=str(place)))
    tensors = load_weights(folder)
    state = load_state(folder, place) if at != "iterate" or "optimizer" in needs else {}
    if at != "iterate":
        averages = state["averages"]
        prefix = f"{at}/"
        chosen = {name.removeprefix(prefix): t for name, t in averages.items() if name.startswith(prefix)}
        if not chosen:
            known = sorted({name.split("/")[0] for name in averages if "/" in name})
            raise DecaylabError(f"{folder} holds no average {at!r}; it has {', '.join(['iterate', *known])}")
        tensors |= chosen
    load_model_tensors(task.model, tensors, str(folder))
    if at != "iterate":
        task.recalibrate(task.model)
    optimizer = None
    if "optimizer" in needs:
        if state["optimizer"] is None:
            raise DecaylabError(f"{folder} holds no optimizer state, which these probes read: leave them out")
        optimizer = stepper(config, task.model, scaled=False).optimizer
        optimizer.load_state_dict(state["optimizer"])
    batches = task.fixed_batches(points) if "loss" in needs else ()
    return _Subject(task.model, task.loss, batches, optimizer)


def _print(found: dict[str, float], as_json: bool) -> None:
    if as_json:
        print(json.dumps({key: value if math.isfinite(value) else None for key, value in found.items()}, indent=2))
        return
    width = max((len(key) for key in found), default=0)
    for key, value in found.items():
        print(f"{key:<{width}}  {value:.6g}")


def _print_probes(as_json: bool) -> None:
    if as_json:
        listed = [{"name": r.name, "needs": sorted(r.needs), "help": r.help, "cost": r.cost} for r in PROBES.values()]
        print(json.dumps(listed, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("probe", "measures", "needs", "costs", title="decaylab probe CHECKPOINT --probes NAME ...")
    for row in PROBES.values():
        table.add_row(row.name, row.help, ", ".join(sorted(row.needs)), row.cost)
    Console().print(table)
