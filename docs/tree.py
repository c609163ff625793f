"""Print the rooms of the package, a line each, from their own docstrings: ``python docs/tree.py``."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "decaylab"


def lines() -> list[str]:
    """Return a line for each folder of the package and for each file that stands beside them."""
    folders = sorted(p.parent for p in SOURCE.rglob("__init__.py") if p.parent != SOURCE)
    files = sorted(p for p in SOURCE.glob("*.py") if not p.name.startswith("__"))
    rooms = [_line(f"{folder.relative_to(SOURCE)}/", folder / "__init__.py") for folder in folders]
    return rooms + [_line(file.name, file) for file in files]


def _line(name: str, file: Path) -> str:
    text = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<!et al)(?<!\bFig)(?<!\bapp)\. ", text)[0].rstrip(".")
    return f"| `{name}` | {sentence} |"


if __name__ == "__main__":
    print("\n".join(lines()))
