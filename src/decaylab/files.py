"""Where decaylab keeps files, and how it writes them so that a crash never leaves half of one."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from decaylab.errors import DecaylabError


def data_home() -> Path:
    """Return the folder for runs, checkpoints and data sets.

    The platform's data folder for this user, or the environment variable ``DECAYLAB_HOME`` where it is set.
    """
    override = os.environ.get("DECAYLAB_HOME")
    return Path(override).expanduser() if override else Path(platformdirs.user_data_dir("decaylab", appauthor=False))


def cache_home() -> Path:
    """Return the folder for what can be computed again: the platform's cache folder, or ``cache`` in `data_home`.

    The latter where the environment variable ``DECAYLAB_HOME`` is set.
    """
    if os.environ.get("DECAYLAB_HOME"):
        return data_home() / "cache"
    return Path(platformdirs.user_cache_dir("decaylab", appauthor=False))


def require_folder(path: Path) -> None:
    """Make a folder, if it is missing, that files can be written into; asked before hours of work for them.

    Raises:
        DecaylabError: It cannot be made, or written into.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise DecaylabError(f"cannot write into the folder {path}: {error.strerror}; name another one") from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; when the block ends well, rename it to ``path``.

    A reader sees the old file or the whole new one, never a part. On an exception the temporary file is removed and
    ``path`` stays as it was.

    Args:
        path: The final name. Its folder is made if it is missing.

    Yields:
        The temporary name to write to, in the same folder and with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` in one step (temporary name, then rename)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def atomic_write_text(path: Path, content: str) -> None:
    """Write UTF-8 ``content`` to ``path`` in one step (temporary name, then rename)."""
    atomic_write_bytes(path, content.encode())
