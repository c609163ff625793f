"""Manifest of a checkpoint: a digest of each of its files, and the metrics that it relies on.

It is written last and read first. A checkpoint of a version that wrote none has none. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from decaylab.errors import DecaylabError
from decaylab.files import sync_folder

NAME = "manifest.json"
FORMAT = 1
_CHUNK_BYTES = 1 << 20


class Coverage(Protocol):
    """The metrics that a checkpoint relies on."""

    @property
    def attempt(self) -> int:
        """Which attempt at the run wrote them; 0 where attempts are not counted."""

    @property
    def last_step(self) -> int:
        """Last step with a metric; -1 without any."""

    @property
    def points(self) -> int:
        """How many points there are up to that step."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint says of itself.

    Attributes:
        attempt: Which attempt at the run wrote it; 0 where attempts are not counted.
        last_step: Last step with a metric that the checkpoint relies on; -1 without any.
        points: How many points of metrics it relies on.
        files: SHA-256 of each file, by name.
        digest: SHA-256 of the manifest itself; ``None`` for a checkpoint without one.
    """

    attempt: int = 0
    last_step: int = -1
    points: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    digest: str | None = None


def write(folder: Path, coverage: Coverage) -> str:
    """Write the manifest of a folder's files, and wait until all of it is on the disk; return the manifest's digest."""
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            files[path.name] = _sha256(file)
            os.fsync(file.fileno())
    content = {
        "format": FORMAT,
        "attempt": coverage.attempt,
        "last_step": coverage.last_step,
        "points": coverage.points,
        "sha256": files,
    }
    text = json.dumps(content, indent=1).encode()
    with (folder / NAME).open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    return hashlib.sha256(text).hexdigest()


def read(folder: Path) -> Manifest:
    """Read a checkpoint's manifest; an empty one, without a digest, where there is none.

    Raises:
        DecaylabError: It is damaged.
    """
    path = folder / NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Manifest()
    except OSError as error:
        raise DecaylabError(f"{path} cannot be read: {error.strerror}; remove {folder}") from None
    try:
        content: Any = json.loads(text)
        attempt, last_step, points = (int(content[name]) for name in ("attempt", "last_step", "points"))
        files = {str(name): str(digest) for name, digest in content["sha256"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DecaylabError(f"{path} is damaged; expected the digests of a checkpoint: remove {folder}") from None
    digest = hashlib.sha256(text).hexdigest()
    return Manifest(attempt=attempt, last_step=last_step, points=points, files=files, digest=digest)


def attempt_of(folder: Path) -> int:
    """Return which attempt wrote a checkpoint; 0 where that is not known."""
    try:
        return read(folder).attempt
    except DecaylabError:
        return 0


def require_whole(path: Path, expected: str) -> None:
    """Compare a file with its digest in the manifest beside it, if there is one.

    Args:
        path: The file.
        expected: What it should be, for the message.

    Raises:
        DecaylabError: The file is damaged.
        FileNotFoundError: There is none.
    """
    manifest = read(path.parent)
    if manifest.digest is None:
        return
    with path.open("rb") as file:
        found = _sha256(file)
    if manifest.files.get(path.name) != found:
        raise DecaylabError(
            f"{path} is damaged (not the bytes that were written); expected {expected}: remove {path.parent}"
        )


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
