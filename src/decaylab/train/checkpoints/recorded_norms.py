"""Norms of a run's weights after every step, in its folder, for another run to follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from decaylab.config.schema import AnyRun
from decaylab.errors import DecaylabError
from decaylab.tensors.norm_trajectory import NormTrajectory
from decaylab.train.checkpoints.layout import norms_file

_COPY = "followed-norms.safetensors"


def followed_norms(
    config: AnyRun, resolve: Callable[[str], Path] | None, folder: Path | None, *, leads: bool
) -> NormTrajectory | None:
    """Return the norms that a run follows, if it follows any.

    A copy of them stays in its own folder: once begun, the run goes on without the other one.

    Args:
        config: The run's settings.
        resolve: Gives the folder of another run.
        folder: The run's own.
        leads: Whether this process writes.

    Raises:
        DecaylabError: The other run is not there, has kept no norms, or their file is damaged.
    """
    origin = config.decay.norms_from
    if origin is None:
        return None
    copy = None if folder is None else folder / _COPY
    if copy is not None and copy.is_file():
        return NormTrajectory.load(copy)
    if resolve is None:
        raise DecaylabError(f"this run follows the norms of run {origin}: train it in the store that holds that run")
    path = norms_file(resolve(origin))
    if not path.is_file():
        raise DecaylabError(f"run {origin} has kept no norms: train one like it with --record-norms first")
    found = NormTrajectory.load(path)
    if copy is not None and leads:
        found.save(copy)
    return found
