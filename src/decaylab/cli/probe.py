"""``decaylab probe``: measure a checkpoint, or any model, with the probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from decaylab.cli.console import console
from decaylab.cli.json_output import print_json
from decaylab.cli.run_folder import run_folder
from decaylab.cli.target import built
from decaylab.errors import DecaylabError, printable, shown
from decaylab.launch.devices import require_device
from decaylab.probes.registry import PROBES, rows

_MOST_AT_ONCE = 2**16

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from decaylab.config.schema import LanguageRun, VisionRun


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
    corpus: str | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Measure a model by itself. Without a checkpoint and without --load: list the probes.

    Args:
        checkpoint: A run's id, or the first characters of it, or its folder: its latest weights are measured; or the
            folder of one checkpoint or snapshot. With --load a file of weights for that model (.safetensors, or one of
            torch.save, which is read without executing anything): a state dict, also as DataParallel, torch.compile or
            Lightning names it, or a checkpoint with one inside.
        probes: What to measure; every key that comes out is explained in the docs.
        load: Your own model, as package.module:function. The function takes no arguments and returns a model, a pair
            (model, optimizer), or a dict with model and any of loss_fn, batches, optimizer. loss_fn(model, batch) is
            the mean loss of a batch.
        at: Which weights of a checkpoint: iterate, or an average of the run such as ema0.999 or uniform.
        points: Training points for probes that run the model of a checkpoint.
        device: auto, cpu, cuda, cuda:N or mps.
        seed: Seed of probes that draw random vectors.
        store: Where the run is. Default: runs.db in the platform's data folder.
        corpus: Where the text of a run on folder:PATH lies, for probes that run the model; it must be the run's own.
            Without it no folder is read that only the checkpoint names.
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
        subject = _trained(run_folder(str(checkpoint), store), at, points, device, needs, corpus)

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

    from decaylab.tensors.state_dicts import match
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
        tensors = match(subject.model, _weights(weights), str(weights))
        load_model_tensors(subject.model, tensors, str(weights))
    # An optimizer holds the parameters themselves, and moving a module keeps them.
    return replace(subject, model=subject.model.to(_device(device)))


def _weights(path: Path) -> dict[str, Tensor]:
    from decaylab.tensors.state_dicts import weights_inside
    from decaylab.tensors.tensor_files import load_archive, load_tensors, require_honest

    if path.suffix == ".safetensors":
        return load_tensors(path)
    return require_honest(weights_inside(load_archive(path), str(path)), path)


def _trained(folder: Path, at: str, points: int, device: str, needs: frozenset[str], corpus: str | None) -> _Subject:
    from decaylab.config.schema import LanguageRun
    from decaylab.train.build import stepper
    from decaylab.train.checkpoints.files import load_config, load_model_tensors, load_state
    from decaylab.train.checkpoints.initial_weights import averaged_weights
    from decaylab.train.checkpoints.load_model import language_model_of, newest_weights
    from decaylab.train.distributed import Processes
    from decaylab.train.tasks import build_task

    try:
        folder = newest_weights(folder)
    except DecaylabError as error:
        raise DecaylabError(f"there are no weights in {folder}: a run keeps them with --snapshots-every") from error
    config = load_config(folder)
    place = _device(device)
    tensors = averaged_weights(folder, at)
    task = None
    if isinstance(config, LanguageRun):
        model: nn.Module = language_model_of(config, tensors, str(folder)).to(place)
    else:
        if corpus is not None:
            raise DecaylabError("--corpus is for language runs")
        _require_plausible(config, tensors, folder)
    if "loss" in needs or not isinstance(config, LanguageRun):
        if isinstance(config, LanguageRun):
            config = _consented(config, corpus, folder, points)
        task = build_task(config, place, Processes(device=str(place)))
        model = task.model
    load_model_tensors(model, tensors, str(folder))
    if at != "iterate" and task is not None:
        task.recalibrate(model)
    optimizer = None
    if "optimizer" in needs:
        state = load_state(folder, place)
        if state["optimizer"] is None:
            raise DecaylabError(f"{folder} holds no optimizer state, which these probes read: leave them out")
        optimizer = stepper(config, model, scaled=False).optimizer
        optimizer.load_state_dict(state["optimizer"])
    batches = task.fixed_batches(points) if task is not None and "loss" in needs else ()
    return _Subject(model, None if task is None else task.loss, batches, optimizer)


def _require_plausible(config: VisionRun, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse settings that would build far more than there are weights for: somebody else may have written them."""
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    if config.model.width > largest or config.model.blocks > len(tensors):
        raise DecaylabError(f"{folder} holds the weights of a model with other settings than its config.json has")


def _consented(config: LanguageRun, corpus: str | None, folder: Path, points: int) -> LanguageRun:
    """Return settings that read no file but those that the person of this command has named.

    A checkpoint may be somebody else's, and its settings name a folder on this machine: text of it could show in what
    is measured. Tokens of the same content that were encoded here before are no such thing.

    Raises:
        DecaylabError: The checkpoint's text lies in a folder, and --corpus does not name it.
    """
    from decaylab.config.schema import FOLDER
    from decaylab.data.text_streams import is_prepared

    data = config.data
    if corpus is not None and not corpus.startswith(FOLDER):
        raise DecaylabError(f"--corpus {corpus}: expected folder:PATH, where the text of this run lies")
    if corpus is not None and data.corpus.startswith(FOLDER):
        data = replace(data, corpus=corpus)
    elif corpus is not None:
        raise DecaylabError(f"{folder} was trained on {data.corpus}: leave --corpus out")
    elif data.corpus.startswith(FOLDER) and not (data.sha256 and is_prepared(data.tokenizer, data.sha256)):
        named = shown(data.corpus, longest=1000)
        raise DecaylabError(
            f"{folder} was trained on {named}, which these probes would read: name it, if you want that, with --corpus "
            "folder:PATH"
        )
    # Nor the test text and the prompt, which no probe reads; and no more batches than are measured.
    size = config.evaluation.batch_size
    if size > _MOST_AT_ONCE:
        raise DecaylabError(f"{folder} evaluates {size:,} sequences at once: probes take at most {_MOST_AT_ONCE:,}")
    batches = -(-points // size)
    evaluation = replace(config.evaluation, text_file=None, text_sha256=None, prompt=None, batches=batches)
    return replace(config, data=data, evaluation=evaluation)


def _print(found: dict[str, float], as_json: bool) -> None:
    if as_json:
        print_json("probe", {"measured": found})
        return
    width = max((len(key) for key in found), default=0)
    for key, value in found.items():
        print(printable(f"{key:<{width}}  {value:.6g}"))


def _print_probes(as_json: bool) -> None:
    if as_json:
        listed = [{"name": r.name, "needs": sorted(r.needs), "help": r.help, "cost": r.cost} for r in PROBES.values()]
        print_json("probes", {"probes": listed})
        return
    from rich.table import Table

    table = Table("probe", "measures", "needs", "costs", title="decaylab probe CHECKPOINT --probes NAME ...")
    for row in PROBES.values():
        table.add_row(row.name, row.help, ", ".join(sorted(row.needs)), row.cost)
    console().print(table)
