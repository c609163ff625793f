"""Where decaylab keeps files, and how it writes them so that a crash never leaves half of one."""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from decaylab.errors import DecaylabError


def data_home() -> Path:
    """Return the folder for runs, checkpoints and data sets.

    The platform's data folder for this user, or the environment variable ``DECAYLAB_HOME`` where it is set.
    """
    override = os.environ.get("DECAYLAB_HOME")
    return home_path(override) if override else Path(platformdirs.user_data_dir("decaylab", appauthor=False))


def home_path(text: str) -> Path:
    """Return a path with ``~`` as the home folder; a name that begins with a tilde and is no user's stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


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


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can say so."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems know no such thing
            raise
    finally:
        os.close(descriptor)


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
        with _naming(path):
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


def atomic_write_together(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write several files of one folder so that they belong together: all are written before the first is renamed.

    On a disk that is full, nothing in the folder changes.

    Args:
        folder: Where; it is made if it is missing.
        contents: Bytes, or text for UTF-8, by name below the folder (``"charts/a.csv"``), put there in their
            order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _naming(folder), tempfile.TemporaryDirectory(prefix=".decaylab-", dir=folder) as scratch:
        for name, content in contents.items():
            temporary = Path(scratch) / name
            temporary.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
        for name in contents:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(scratch) / name, target)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put a path into errors of the system that name none, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
