"""Text that a finished language model is measured on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from decaylab.errors import DecaylabError


def read_text(path: str | Path) -> str:
    """Read a text file.

    Raises:
        DecaylabError: It cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise DecaylabError(f"the test text {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise DecaylabError(f"the test text {path} is not UTF-8: convert it") from None


def fingerprint(text: str) -> str:
    """Return 16 hexadecimal digits of a hash of a text; a run's summary has it as ``text``."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
