"""Layout of a run's folder: snapshots, which stay, and checkpoints, which serve until the run is done.

Both have the files that `decaylab.train.checkpoints.files` writes. Nothing here imports torch.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from decaylab.config.schema import AnyRun, LanguageRun
from decaylab.train.checkpoints.manifest import attempt_of

KEEP = 2
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_SNAPSHOT = re.compile(r"snapshot-(\d+)")
_HALF = ".*-*.*.????????"  # what `decaylab.train.checkpoints.files.save` gives a folder that it has not finished


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Return where a run keeps the checkpoint after ``step`` steps."""
    return folder / f"checkpoint-{step}"


def snapshot_folder(folder: Path, step: int) -> Path:
    """Return where a run keeps the snapshot after ``step`` steps; snapshots are never cleaned up by the run."""
    return folder / f"snapshot-{step}"


def norms_file(folder: Path) -> Path:
    """Return where a run with ``record_norms`` keeps the norms of its weights once it is done."""
    return folder / "norms.safetensors"


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """List a run's whole checkpoints as (steps done, folder), newest first."""
    return sorted(_named(folder, _CHECKPOINT), reverse=True)


def snapshots(folder: Path) -> list[tuple[int, Path]]:
    """List a run's snapshots as (steps done, folder), newest first."""
    return sorted(_named(folder, _SNAPSHOT), reverse=True)


def weights_at(folder: Path, step: int, *, optimizer: bool = False) -> Path | None:
    """Return a run's snapshot or checkpoint after ``step`` steps, ``None`` if there is neither.

    Args:
        folder: The run's.
        step: Steps done.
        optimizer: Take the checkpoint where there are both: it always has the optimizer's state.
    """
    places = [snapshot_folder(folder, step), checkpoint_folder(folder, step)]
    return next((path for path in (reversed(places) if optimizer else places) if path.is_dir()), None)


def keeps_snapshot(config: AnyRun, step: int, *, total: int, unit: int) -> bool:
    """Whether a run keeps a snapshot after ``step`` steps.

    Args:
        config: Its settings.
        step: Steps done.
        total: Steps it has in all.
        unit: Steps of what ``snapshots_every`` and ``snapshots_at`` count: of an epoch for vision, 1 for language.
    """
    every = config.snapshots_every * unit
    return (
        (every > 0 and step % every == 0)
        or (step % unit == 0 and step // unit in config.snapshots_at)
        or (step == total and isinstance(config, LanguageRun))  # what a finished language model says is asked later on
    )


def sweep(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left half written in a run's folder."""
    for path in folder.glob(_HALF):
        shutil.rmtree(path, ignore_errors=True)


def prune(folder: Path, keep: int = KEEP, *, done: int | None = None, attempt: int | None = None) -> None:
    """Remove all but the newest ``keep`` checkpoints.

    Args:
        folder: The run's.
        keep: How many stay.
        done: The step that the run is at: checkpoints after it are of an attempt that was given up, and go too.
        attempt: The attempt at the run that asks; what a later one wrote stays. None where the run has ended.
    """
    there = checkpoints(folder)
    ahead = [path for step, path in there if done is not None and step > done]
    old = [path for step, path in there if done is None or step <= done][keep:]
    for path in (*ahead, *old):
        if attempt is None or attempt_of(path) <= attempt:
            shutil.rmtree(path, ignore_errors=True)


def _named(folder: Path, name: re.Pattern[str]) -> list[tuple[int, Path]]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return [(int(match[1]), path) for path in paths if (match := name.fullmatch(path.name))]
