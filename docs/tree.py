"""Print the README's file tree, one line a file, from the files' own docstrings: ``python docs/tree.py``."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "decaylab"
FOLDERS = {
    "tests/": "mirrors src/; test_layers.py holds the arrows between the rooms",
    "benchmarks/": "side-by-side timings against peers, each printing its ratio",
    "docs/": "one page a concept",
    "examples/": "scripts to start from",
    "results/": "the tables and verdicts behind each published figure",
}


def lines() -> list[str]:
    """Return the tree's lines: rooms from the top of the house down are folders, files are sorted by name."""
    tree = ["src/decaylab/"]
    for path in sorted(SOURCE.iterdir(), key=lambda p: (p.is_dir(), p.name)):
        if path.is_dir() and (path / "__init__.py").exists():
            tree.append(_line(1, f"{path.name}/", path / "__init__.py"))
            files = sorted(p for p in path.glob("*.py") if p.name != "__init__.py")
            tree += [_line(2, file.name, file) for file in files]
        elif path.suffix == ".py" and not path.name.startswith("__"):
            tree.append(_line(1, path.name, path))
    return tree + [f"{name:<32}{text}" for name, text in FOLDERS.items()]


def _line(depth: int, name: str, file: Path) -> str:
    text = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<!et al)(?<!\bFig)(?<!\bapp)\. ", text)[0].rstrip(".")
    return f"{'  ' * depth + name:<32}{sentence}"


if __name__ == "__main__":
    print("\n".join(f"    {line}" for line in lines()))
