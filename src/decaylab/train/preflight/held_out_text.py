"""Which text is a finished language model measured on, and is it still the one that an earlier run was measured on?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decaylab.config.schema import AnyRun
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


def changed(config: AnyRun, summary: Mapping[str, Any]) -> str | None:
    """Say in one line that the text of a run is not what it was when the run was measured; None where it is.

    A run's id has the path of its text, not the content, so a finished run is not trained again for a new content.

    Args:
        config: The run.
        summary: What it said at its end.
    """
    path = config.evaluation.text_file
    if path is None or "text" not in summary or fingerprint(read_text(path)) == summary["text"]:
        return None
    return (
        f"{path} has changed since this run was measured on it, so test/loss is that of the earlier text: give the new "
        f"text another name, and it is another run"
    )
