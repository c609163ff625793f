"""Record of what a folder's page shows, so that another set of experiments does not replace it unnoticed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "page.json"
SCHEMA = "decaylab.page/1"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a page shows.

    Attributes:
        experiments: Pairs of an experiment's id and its budget, in the order of the page.
        drawn: When.
        files: The charts beside the page, by their names below the folder.
    """

    experiments: tuple[tuple[str, str], ...]
    drawn: str
    files: tuple[str, ...]

    def to_json(self) -> str:
        """Write it as JSON."""
        content = {
            "schema": SCHEMA,
            "drawn": self.drawn,
            "experiments": [{"id": name, "budget": budget} for name, budget in self.experiments],
            "files": list(self.files),
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def read(folder: Path) -> Manifest | None:
    """Return what the page in a folder shows; None where there is no page, or an older one that does not say."""
    try:
        content: Any = json.loads((folder / NAME).read_bytes())
        if content["schema"] != SCHEMA:
            return None
        return Manifest(
            experiments=tuple((str(e["id"]), str(e["budget"])) for e in content["experiments"]),
            drawn=str(content["drawn"]),
            files=tuple(name for name in map(str, content["files"]) if _is_chart(name)),
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def replaced(folder: Path, experiments: Sequence[tuple[str, str]]) -> str | None:
    """Say which page of other experiments a new one would replace; None where there is none.

    Args:
        folder: Where the new page goes.
        experiments: Its experiments with their budgets.
    """
    there = read(folder)
    if there is None or not there.experiments or set(there.experiments) <= set(experiments):
        return None
    names = ", ".join(f"{name} ({budget})" for name, budget in there.experiments)
    return f"{folder} holds the page of {names}, drawn {there.drawn}: it is replaced (--out names another folder)"


def _is_chart(name: str) -> bool:
    folder, _, file = name.partition("/")
    return folder == "charts" and "/" not in file and file.endswith((".svg", ".pdf", ".png", ".csv"))
