"""What does the store say of a run before the run enters it: has it ended, can it start from where it is told to?"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

from decaylab.components import ARCHITECTURES
from decaylab.config.identity import from_dict, run_id
from decaylab.config.schema import FOREIGN, AnyRun, InitFrom, LanguageRun, kind
from decaylab.errors import DecaylabError, unknown
from decaylab.store.records import RunRow
from decaylab.store.run_ids import whole_id
from decaylab.store.store import Store
from decaylab.train.checkpoints import layout as run_folder

# Settings of a model that change neither the names nor the shapes of its weights.
_FREE = {"activation", "attention", "dropout", "init_std", "num_heads", "vocab_size"}
_SHOWN = 12


def has_ended(run: str, url: str | None) -> bool:
    """Whether a store is there and knows a run that is never trained again."""
    try:
        with Store(url, create=False) as store:
            row = store.get(run)
    except DecaylabError:  # no store yet, or none that can be used: whoever opens it to train is told why
        return False
    return row is not None and row.is_ended


def has_begun(config: AnyRun, url: str | None) -> bool:
    """Whether a run has a checkpoint to go on from, or has ended: then it needs no weights to start from any more."""
    try:
        with Store(url, create=False) as store:
            return _begun(config, store)
    except DecaylabError:  # as above
        return False


def _begun(config: AnyRun, store: Store) -> bool:
    row = store.get(run_id(config))
    return row is not None and (row.is_ended or bool(run_folder.checkpoints(store.folder(row.id))))


def require_origin(config: AnyRun, url: str | None) -> AnyRun:
    """Return a run's settings with the whole ids of the run that it starts from and of the one whose norms it follows.

    Args:
        config: The run's settings; those that name no other run are returned as they are.
        url: The store.

    Raises:
        DecaylabError: The store does not know the other run, or that run has not the snapshot, the average or the
            optimizer's state that is asked for and will not write it, or its model is another; or it keeps no norms.
    """
    if config.decay.norms_from is not None:
        config = _require_norms(config, config.decay.norms_from, url)
    source = config.init_from
    if source is None or source.run.startswith(FOREIGN):
        return config
    with Store(url, create=False) as store:
        known = [row.id for row in store.rows()]
        if not any(run.startswith(source.run) for run in known):
            raise DecaylabError(
                f"this run starts from run {source.run}, which is not in the store {store.label}: train that one first"
            )
        source = dataclasses.replace(source, run=whole_id(source.run, known))
        config = dataclasses.replace(config, init_from=source)
        row = store.get(source.run)
        assert row is not None
        if not _begun(config, store):
            folder = store.folder(row.id)
            _check_settings(config, source, row, folder)
            _check_snapshot(source, row, folder)
    return config


def origin_is_there(config: AnyRun, url: str | None) -> bool:
    """Whether the weights that a run starts from lie in the store already, so that it need not wait for their run."""
    source, followed = config.init_from, config.decay.norms_from
    if followed is not None:
        with Store(url, create=False) as store:
            if not run_folder.norms_file(store.folder(followed)).is_file():
                return False
    if source is None or source.run.startswith(FOREIGN):
        return True
    with Store(url, create=False) as store:
        return run_folder.weights_at(store.folder(source.run), source.step, optimizer=source.optimizer) is not None


def _require_norms(config: AnyRun, run: str, url: str | None) -> AnyRun:
    """Return a run's settings with the whole id of the run whose norms it follows, which has to keep them."""
    with Store(url, create=False) as store:
        known = [row.id for row in store.rows()]
        if not any(name.startswith(run) for name in known):
            raise DecaylabError(
                f"this run follows the norms of run {run}, which is not in the store {store.label}: train that one "
                "first, with --record-norms"
            )
        run = whole_id(run, known)
        config = dataclasses.replace(config, decay=dataclasses.replace(config.decay, norms_from=run))
        row = store.get(run)
        assert row is not None
        other = from_dict(row.config)
        if not other.record_norms:
            raise DecaylabError(f"run {run} keeps no norms: train one like it with --record-norms")
        if not _begun(config, store):
            if kind(other) != kind(config):
                raise DecaylabError(f"run {run} is a {kind(other)} run: a {kind(config)} run cannot follow its norms")
            if row.is_ended and not run_folder.norms_file(store.folder(run)).is_file():
                raise DecaylabError(f"run {run} ended as {row.status} and has left no norms to follow")
    return config


def _check_snapshot(source: InitFrom, row: RunRow, folder: Path) -> None:
    """Refuse a step of which nothing lies on disk, unless the run is in training and will keep a snapshot of it."""
    written = _written(folder)
    if source.step in written:
        return
    planned = [] if row.is_ended else _planned(row)
    if source.step in planned and not row.alive:
        raise DecaylabError(
            f"this run starts from step {source.step} of run {row.id}, which has not got there ({row.status} at step "
            f"{row.step}): train that one first"
        )
    if source.step in planned:
        return
    steps, verb = (written, "kept") if row.is_ended else (planned, "will keep")
    if not steps:
        raise DecaylabError(f"run {row.id} {verb} no snapshots: train one like it with --snapshots-every")
    shown = ", ".join(map(str, steps[:_SHOWN])) + (f" ... {steps[-1]}" if len(steps) > _SHOWN else "")
    raise DecaylabError(f"run {row.id} {verb} no snapshot of step {source.step}; it {verb} those of {shown}")


def _written(folder: Path) -> list[int]:
    """Return the steps of the snapshots, and of the checkpoints of a run that is not done."""
    return sorted({step for step, _ in [*run_folder.snapshots(folder), *run_folder.checkpoints(folder)]})


def _planned(row: RunRow) -> list[int]:
    """Return the steps of which a run keeps a snapshot when it gets there."""
    config = from_dict(row.config)
    total = config.steps if isinstance(config, LanguageRun) else row.total_steps
    unit = 1 if isinstance(config, LanguageRun) else max(1, total // config.epochs)
    keeps = partial(run_folder.keeps_snapshot, config, total=total, unit=unit)
    return [step for step in range(total + 1) if keeps(step)]


def _check_settings(config: AnyRun, source: InitFrom, row: RunRow, folder: Path) -> None:
    other = from_dict(row.config)
    if kind(other) != kind(config):
        raise DecaylabError(f"run {row.id} is a {kind(other)} run: a {kind(config)} run cannot start from it")
    own, theirs = _shape(config), _shape(other)
    for name in own:
        if name in theirs and own[name] != theirs[name]:
            raise DecaylabError(
                f"run {row.id} has {name} {theirs[name]} and this run {own[name]}, so its weights do not fit: give "
                "this run the same"
            )
    averages = [f"ema{c:g}" for c in other.averages.ema] + (["uniform"] if other.averages.uniform else [])
    if source.weights not in ("iterate", *averages):
        raise unknown(f"average of run {row.id}", source.weights, ["iterate", *averages])
    with_optimizer = other.snapshot_optimizer or run_folder.checkpoint_folder(folder, source.step).is_dir()
    if source.optimizer and not with_optimizer:
        raise DecaylabError(
            f"the snapshots of run {row.id} hold no optimizer state: train one like it with --snapshot-optimizer"
        )


def _shape(config: AnyRun) -> dict[str, object]:
    """Return the settings that decide the names and the shapes of a model's weights."""
    found: dict[str, object] = {
        f"model.{name}": getattr(config.model, name) for name in config.model.__dataclass_fields__ if name not in _FREE
    }
    if isinstance(config, LanguageRun):
        vocabulary = config.model.vocab_size
        found["model.vocab_size" if vocabulary else "data.tokenizer"] = vocabulary or config.data.tokenizer
    else:
        found |= {"data.dataset": config.data.dataset, "data.parity": config.data.parity}
        row = ARCHITECTURES.get(config.model.architecture)
        if row is not None and not row.reads("blocks"):
            del found["model.blocks"]
    return found
