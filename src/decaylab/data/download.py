"""How does a file from a network come onto this machine: once, with its hash checked."""

from __future__ import annotations

import logging
from pathlib import Path

from decaylab.errors import DecaylabError


def fetch(url: str, folder: Path, known_hash: str, *, source: Path | None = None, progress: bool = True) -> Path:
    """Return a file with the given hash: from ``folder``, from ``source``, or downloaded into ``folder``.

    Args:
        url: Where the file is.
        folder: Where it is kept.
        known_hash: ``"md5:..."`` or ``"sha256:..."``.
        source: The file, or a folder with the file, from somewhere else; nothing is downloaded then.
        progress: Tell on the terminal that a download starts.

    Raises:
        DecaylabError: When the download fails (says what to do instead), or the content has another hash.
    """
    import pooch

    name = url.rsplit("/", 1)[1]
    if source is not None:
        path = source / name if source.is_dir() else source
        if not path.is_file():
            raise DecaylabError(f"{path} is missing: expected the file {name} from {url}")
        algorithm, expected = known_hash.split(":")
        found = pooch.file_hash(str(path), alg=algorithm)
        if found != expected:
            raise DecaylabError(f"{path} is damaged: expected {algorithm} {expected}, found {found}")
        return path
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.INFO if progress else logging.ERROR)
    try:
        return Path(pooch.retrieve(url, known_hash=known_hash, fname=name, path=folder))
    except ValueError as error:  # pooch has removed the file
        raise DecaylabError(f"{url} did not have the expected content ({known_hash}): try again later") from error
    except Exception as error:  # any of the network's many exceptions: the way out is the same
        reason = type(error).__name__
        raise DecaylabError(
            f"cannot download {url} ({reason}): get {name} another way and add `--source PATH_OF_{name}`"
        ) from error
    finally:
        logger.setLevel(level)
