"""SHA-256 digests of files, computed again only when the file system says that a file is another one."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from decaylab.errors import DecaylabError
from decaylab.files import atomic_write_text, cache_home

# A file changed again within the file system's clock tick has the same times: what is younger is not remembered.
_SETTLED_NS = 2 * 10**9
_Stamp = tuple[int, int, int, int, int]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits.

    Raises:
        DecaylabError: It is missing, not a regular file, cannot be read, or changes while it is read.
    """
    return file_digests(path.parent, [path.name])[0]


def file_digests(root: Path, names: Sequence[str]) -> list[str]:
    """Return the SHA-256 of some files below a folder.

    A digest is kept in the cache folder with the file's device, inode, size and times of modification and of change
    (the latter no program can set), and holds as long as all of them are the same.

    Args:
        root: The folder.
        names: The files, relative to it.

    Raises:
        DecaylabError: See `file_digest`.
    """
    cache = _cache_file(root)
    known = _known(cache)
    found, new = [], False
    for name in names:
        path = root / name
        stamp = _stamp(path)
        entry = known.get(name)
        if entry is None or entry[0] != stamp:
            digest, stamp = _read(path, stamp)
            if time.time_ns() - _last_change(stamp) > _SETTLED_NS:
                known[name] = (stamp, digest)
                new = True
        else:
            digest = entry[1]
        found.append(digest)
    if new:
        _keep(cache, known)
    return found


def remember(path: Path, digest: str) -> None:
    """Keep the digest of a file that this process has just written, and nobody else writes to."""
    cache = _cache_file(path.parent)
    _keep(cache, _known(cache) | {path.name: (_stamp(path), digest)})


def _read(path: Path, before: _Stamp) -> tuple[str, _Stamp]:
    """Hash a file; a file that was written to in between is hashed once more."""
    for _ in range(3):
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DecaylabError(f"{path} cannot be read: {error.strerror}") from error
        after = _stamp(path)
        if after == before:
            return digest, after
        before = after
    raise DecaylabError(f"{path} changes while it is read: wait until whatever writes it is done")


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError as error:
        raise DecaylabError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise DecaylabError(f"{path} is not a file with content: expected a regular file")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _last_change(stamp: _Stamp) -> int:
    # Windows' st_ctime is the time of creation.
    return max(stamp[3], stamp[4]) if os.name == "nt" else stamp[4]


def _cache_file(root: Path) -> Path:
    key = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return cache_home() / "digests" / f"{key}.json"


def _known(cache: Path) -> dict[str, tuple[_Stamp, str]]:
    """Read what was kept; a cache that is missing, damaged or of another version is empty."""
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
        return {
            str(name): ((int(dev), int(ino), int(size), int(mtime), int(ctime)), str(digest))
            for name, (dev, ino, size, mtime, ctime, digest) in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _keep(cache: Path, known: dict[str, tuple[_Stamp, str]]) -> None:
    content = {name: [*stamp, digest] for name, (stamp, digest) in known.items()}
    with suppress(OSError):  # a read-only home costs time, nothing else
        atomic_write_text(cache, json.dumps(content))
