"""Checkpoints: the whole state of a run on disk, so that it goes on bit for bit where it stopped.

A checkpoint is a folder: ``weights.safetensors`` (parameters and buffers, tied ones once), ``state.pt`` (optimizer,
averages, random state, trackers; read with ``weights_only=True``, so it cannot execute code), ``config.json`` and
``manifest.json`` with the digests of the others, which are compared whenever one of them is read. It is written under a
temporary name and renamed, so there is never half of one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from decaylab.config.identity import from_dict, to_dict
from decaylab.config.schema import AnyRun
from decaylab.errors import DecaylabError
from decaylab.files import sync_folder
from decaylab.serialization import read_object
from decaylab.tensors.sharding import local
from decaylab.tensors.tensor_files import load_archive
from decaylab.train.checkpoints import manifest
from decaylab.train.checkpoints.manifest import Coverage
from decaylab.train.distributed import piece, whole

_ALMOST_NOTHING = 1 << 20  # bytes


class DiskFull(DecaylabError):
    """There is no room for a checkpoint."""


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's parameters and buffers by name, tied ones once, under the first of their names, and whole.

    Where weights are sharded, all processes have to call this.
    """
    seen: set[int] = set()
    tensors = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = whole(tensor.detach()).contiguous()
    return tensors


def load_model_tensors(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy named tensors into a model; each process its share where weights are sharded.

    Raises:
        DecaylabError: A name is missing, unknown, or has another shape.
    """
    expected = _names(model)
    for name in expected - tensors.keys():
        raise DecaylabError(f"{origin} has no {name!r}: it belongs to a model with other settings")
    for name in tensors.keys() - expected:
        raise DecaylabError(f"{origin} has {name!r}, which this model has not: it belongs to other settings")
    targets = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in tensors.items():
            if targets[name].shape != tensor.shape:
                shapes = f"{tuple(tensor.shape)}, this model {tuple(targets[name].shape)}"
                raise DecaylabError(f"{origin}: {name!r} is {shapes}: it belongs to other settings")
            local(targets[name]).copy_(piece(targets[name], tensor))


def _names(model: nn.Module) -> set[str]:
    """Return the names under which a model's tensors are kept."""
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        first.setdefault(id(tensor), name)
    return set(first.values())


def save(
    folder: Path,
    config: AnyRun,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    coverage: Coverage | None = None,
    confirm: Callable[[str], None] | None = None,
) -> None:
    """Write a checkpoint folder in one step that outlasts the death of the machine.

    Args:
        folder: Its final name; one that is already there is replaced, unless a later attempt at the run wrote it.
        config: The run's settings.
        tensors: Its weights, from :func:`model_tensors`.
        state: Everything else: tensors, numbers, strings and containers of them.
        coverage: The metrics that it relies on, and the attempt that writes it.
        confirm: Called with the digest of the manifest when all is on the disk, right before the folder gets its name.

    Raises:
        DiskFull: There is no room for it; nothing of it is left.
        DecaylabError: A later attempt at the run has written this folder.
    """
    coverage = coverage or manifest.Manifest()
    temporary = _beside(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        save_file({name: tensor.cpu() for name, tensor in tensors.items()}, temporary / "weights.safetensors")
        torch.save(dict(state), temporary / "state.pt")
        (temporary / "config.json").write_text(json.dumps(to_dict(config), indent=1))
        digest = manifest.write(temporary, coverage)
        if confirm is not None:
            confirm(digest)
        _put(temporary, folder, coverage.attempt)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have errors of their own
        if _is_full(error, folder.parent):
            raise DiskFull(f"{folder} cannot be written: its disk is full; free some space and go on") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(folder: Path) -> Path:
    """Return a temporary name for a folder, as `decaylab.train.checkpoints.layout.sweep` knows it."""
    return folder.with_name(f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")


def _put(temporary: Path, folder: Path, attempt: int) -> None:
    """Give a folder its name."""
    old = None
    if folder.exists():
        if manifest.attempt_of(folder) > attempt:
            raise DecaylabError(f"{folder} was written by a later attempt at the run, and is left as it is")
        old = _beside(folder)
        folder.rename(old)
    temporary.rename(folder)
    sync_folder(folder.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _is_full(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, (RuntimeError, SafetensorError)) and (
        "No space left" in str(error) or shutil.disk_usage(folder).free < _ALMOST_NOTHING
    )


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Read a checkpoint's weights.

    Raises:
        DecaylabError: The file is missing or damaged.
    """
    path = folder / "weights.safetensors"
    try:
        manifest.require_whole(path, "a safetensors file")
        return load_file(path)
    except FileNotFoundError:
        raise DecaylabError(f"there is no checkpoint at {folder}: expected {path.name} in it") from None
    except (SafetensorError, OSError) as error:
        raise DecaylabError(f"{path} is damaged ({error}); expected a safetensors file: remove {folder}") from None


def load_state(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read everything in a checkpoint but its weights; nothing in it is executed.

    Raises:
        DecaylabError: The file is missing or damaged.
    """
    path = folder / "state.pt"
    try:
        manifest.require_whole(path, "a torch archive")
        path.stat()
    except FileNotFoundError:
        raise DecaylabError(f"there is no checkpoint at {folder}: expected {path.name} in it") from None
    try:
        state: dict[str, Any] = load_archive(path, device=device)
    except DecaylabError as error:
        raise DecaylabError(f"{error}; expected a torch archive: remove {folder}") from None
    return state


def load_config(folder: Path) -> AnyRun:
    """Read the settings of the run that a checkpoint belongs to.

    Raises:
        DecaylabError: The file is missing or damaged.
    """
    path = folder / "config.json"
    try:
        manifest.require_whole(path, "the run's settings as JSON")
    except FileNotFoundError:
        raise DecaylabError(f"there is no checkpoint at {folder}: expected {path.name} in it") from None
    try:
        return from_dict(read_object(path, "the run's settings"))
    except DecaylabError as error:
        if str(error).startswith(str(path)):
            raise
        raise DecaylabError(f"{path} is damaged ({error}); expected the run's settings as JSON") from None


def require_plausible(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Look for damage in a checkpoint of a version that wrote no digests, as far as it shows.

    Args:
        folder: The checkpoint.
        tensors: Its weights, as read.

    Raises:
        DecaylabError: The archive's own checksums do not fit, or a weight is not a number.
    """
    path = folder / "state.pt"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error) as error:
        raise DecaylabError(f"{path} is damaged ({error}); expected a torch archive: remove {folder}") from None
    if damaged is not None:
        raise DecaylabError(f"{path} is damaged (in {damaged}); expected a torch archive: remove {folder}")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DecaylabError(
                f"{folder / 'weights.safetensors'} is damaged ({name!r} is not finite): remove {folder}"
            )
