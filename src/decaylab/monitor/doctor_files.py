"""Checkpoints of finished trainings on disk: transformers folders, nanoGPT and Lightning files, torch archives.

Nothing that is read executes: safetensors, and torch archives of tensors, numbers, strings and containers only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from decaylab.errors import DecaylabError, shown
from decaylab.serialization import read_object
from decaylab.tensors.checkpoint_folder import CONFIG, WEIGHTS, weight_files
from decaylab.tensors.state_dicts import weights_inside
from decaylab.tensors.tensor_files import load_archive, load_tensors, require_honest

Kind = Literal["transformers", "nanoGPT", "Lightning", "torch"]
MOST_STEPS = 20_000_000
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_OPTIMIZERS = ("optimizer.pt", "optimizer.bin")
_SUFFIXES = (".ckpt", ".pt", ".pth", ".tar")
_NO_WEIGHTS = re.compile(r"(optimizer|scheduler|scaler|rng_state|random_states|training_args|sampler|dataloader).*")
_DEEPEST = 3
_OPTIMIZER_KEYS = ("optimizer", "optimizer_state_dict", "optimizer_state", "optim", "optim_state_dict", "opt")
_SCHEDULER_KEYS = ("lr_schedulers", "scheduler", "lr_scheduler", "scheduler_state_dict", "lr_scheduler_state_dict")
_STEP_KEYS = ("global_step", "iter_num", "step", "steps", "iteration", "iter", "num_updates")


@dataclass
class Checkpoint:
    """What one checkpoint holds.

    Attributes:
        path: The folder or file.
        kind: The program that wrote it.
        step: Updates so far; None where nothing says it.
        total_steps: Length of the run, where it is known.
        weights: Tensors by name, in the order of the file.
        ordered: Whether that order is the model's; safetensors sorts the names.
        optimizers: State dicts of the optimizers.
        schedulers: State dicts of torch's learning-rate schedulers, one an optimizer.
        logged: Pairs (update, learning rate) that the program logged.
        settings: The training's own settings (nanoGPT's ``config``).
        config: The model's settings (transformers' ``config.json``).
        missing: What a checkpoint of this kind usually has and this one has not.
    """

    path: Path
    kind: Kind
    step: int | None
    weights: dict[str, Tensor]
    ordered: bool = True
    total_steps: int | None = None
    optimizers: list[Mapping[str, Any]] = field(default_factory=list)
    schedulers: list[Mapping[str, Any]] = field(default_factory=list)
    logged: list[tuple[int, float]] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def places(paths: Sequence[Path]) -> list[tuple[Path, bool]]:
    """Return the checkpoints at some paths, and whether each was named by the caller rather than found in a folder.

    Raises:
        DecaylabError: A path is missing, or a folder has no checkpoint down to its third level.
    """
    found: dict[Path, bool] = {}
    for path in paths:
        if not path.exists():
            raise DecaylabError(f"there is no file or folder {path}")
        if path.is_file() or (_is_folder_of_weights(path) and not _inside(path)):
            found[path] = True
            continue
        inside = _inside(path)
        if _is_folder_of_weights(path) and (path / "trainer_state.json").exists():
            inside.append(path)
        if not inside:
            raise DecaylabError(
                f"{path} holds no checkpoint: expected {WEIGHTS[0]}, {WEIGHTS[1]}, or files that end in "
                f"{', '.join(_SUFFIXES[:3])}"
            )
        for one in inside:
            found.setdefault(one, False)
    return list(found.items())


def _inside(folder: Path) -> list[Path]:
    level = [folder]
    for _ in range(_DEEPEST):
        children = sorted(child for place in level for child in _listed(place) if not child.name.startswith("."))
        found = [child for child in children if _is_checkpoint(child)]
        if found:
            return found
        level = [child for child in children if child.is_dir() and not child.is_symlink()]
    return []


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _is_checkpoint(path: Path) -> bool:
    if path.is_dir():
        return _is_folder_of_weights(path)
    return path.is_file() and path.suffix in _SUFFIXES and not _NO_WEIGHTS.fullmatch(path.name)


def _is_folder_of_weights(path: Path) -> bool:
    if not path.is_dir():
        return False
    return any((path / name).exists() or (path / f"{name}.index.json").exists() for name in (*WEIGHTS, *_ADAPTERS))


def read(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        DecaylabError: It is damaged, holds more than tensors, or holds no weights.
    """
    found = _folder(path) if path.is_dir() else _file(path)
    if found.step is None:
        found.step = _step_of_state(found.optimizers)
    for count in (found.step, found.total_steps):
        if count is not None and not 0 <= count <= MOST_STEPS:
            raise DecaylabError(f"{path} is damaged: it claims {shown(count)} steps, more than {MOST_STEPS:,}")
    return found


def _folder(path: Path) -> Checkpoint:
    adapter = next((name for name in _ADAPTERS if (path / name).exists()), None)
    has_weights = any((path / n).exists() or (path / f"{n}.index.json").exists() for n in WEIGHTS)
    names = weight_files(path) if has_weights or adapter is None else [adapter]
    weights: dict[str, Tensor] = {}
    for name in names:
        weights |= load_tensors(path / name)
    state = path / "trainer_state.json"
    progress = read_object(state, "the progress of a training") if state.exists() else {}
    optimizer = next((path / name for name in _OPTIMIZERS if (path / name).exists()), None)
    scheduler = path / "scheduler.pt"
    held = _mappings([load_archive(optimizer)], optimizer) if optimizer is not None else []
    config = read_object(path / CONFIG, "a model's settings") if (path / CONFIG).exists() and adapter is None else {}
    missing = [name for name, there in (("optimizer.pt", optimizer), ("trainer_state.json", progress)) if not there]
    return Checkpoint(
        path=path,
        kind="transformers",
        step=_whole(progress.get("global_step"), state),
        total_steps=_whole(progress.get("max_steps"), state) or None,
        weights=weights,
        ordered=not names[0].endswith(".safetensors"),
        optimizers=held,
        schedulers=_mappings([load_archive(scheduler)], scheduler) if scheduler.exists() else [],
        logged=list(_logged(progress.get("log_history"))),
        config=config,
        missing=tuple(missing),
    )


def _logged(history: Any) -> Iterator[tuple[int, float]]:
    for entry in history if isinstance(history, list) else []:
        if isinstance(entry, dict):
            step, lr = entry.get("step"), entry.get("learning_rate")
            if isinstance(step, int) and isinstance(lr, int | float) and 0 < step <= MOST_STEPS and 0 <= lr < math.inf:
                yield step, float(lr)


def _file(path: Path) -> Checkpoint:
    if path.suffix == ".safetensors":
        return Checkpoint(path, "torch", None, load_tensors(path), ordered=False, missing=("the optimizer's state",))
    content = load_archive(path)
    weights = require_honest(weights_inside(content, str(path)), path)
    if not isinstance(content, Mapping) or next(iter(weights), None) in content:
        return Checkpoint(path, "torch", None, weights, missing=("the optimizer's state",))
    kind: Kind = "torch"
    if "pytorch-lightning_version" in content or "optimizer_states" in content:
        kind = "Lightning"
    elif "iter_num" in content and "model_args" in content:
        kind = "nanoGPT"
    listed = content.get("optimizer_states")
    there = [content[key] for key in _OPTIMIZER_KEYS if isinstance(content.get(key), Mapping | list)]
    states = listed if isinstance(listed, list) else there[:1]
    found = [content[key] for key in _SCHEDULER_KEYS if isinstance(content.get(key), Mapping | list)]
    schedulers = found[0] if found and isinstance(found[0], list) else found[:1]
    settings = content.get("config")
    settings = settings if isinstance(settings, Mapping) else {}
    step = next((content[key] for key in _STEP_KEYS if isinstance(content.get(key), int | Tensor)), None)
    total = settings.get("max_iters") if kind == "nanoGPT" else None
    return Checkpoint(
        path=path,
        kind=kind,
        step=_whole(step, path),
        total_steps=_whole(total, path),
        weights=weights,
        optimizers=_mappings(states, path),
        schedulers=[s for s in schedulers if isinstance(s, Mapping)],
        settings=settings,
        missing=() if states else ("the optimizer's state",),
    )


def _mappings(states: Sequence[Any], path: Path | None) -> list[Mapping[str, Any]]:
    for state in states:
        if not isinstance(state, Mapping):
            raise DecaylabError(f"{path} is damaged: it holds {shown(type(state).__name__)} where a state is expected")
    return list(states)


def _whole(value: Any, path: Path) -> int | None:
    if value is None:
        return None
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DecaylabError(f"{path} is damaged: {shown(value)} is no number of steps")
    return int(value)


def _step_of_state(optimizers: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the largest count of updates that an optimizer keeps beside a parameter."""
    counts = []
    for optimizer in optimizers:
        states = optimizer.get("state")
        for state in states.values() if isinstance(states, Mapping) else ():
            count = state.get("step") if isinstance(state, Mapping) else None
            if isinstance(count, Tensor) and count.numel() == 1:
                count = count.item()
            if isinstance(count, int | float) and math.isfinite(count):
                counts.append(int(count))
    return max(counts, default=None)
