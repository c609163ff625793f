"""Console of every command: as wide as a terminal, and without folding where another program reads."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_UNFOLDED = 1000  # columns, more than any table here has


def console() -> Console:
    """Return a console for tables: in a pipe no line is folded, so that grep and awk see one entry a line."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNFOLDED)
