"""The arrows of the house: a room imports only rooms below it, and siblings never import each other."""

import ast
from pathlib import Path

import pytest

import decaylab

SOURCE = Path(decaylab.__file__).parent

# From the ground up; rooms on one row are siblings.
ROWS = [
    {"errors"},
    {"csv_cells", "extras", "files", "glossary", "quantities", "serialization"},
    {"lazy", "references", "schedules"},
    {"components", "params", "tensors"},
    {"conventions"},
    {"advice"},
    {"conformance", "config"},
    {"curvature", "decay", "models", "data"},
    {"probes"},
    {"train", "store", "monitor"},
    {"launch", "experiments"},
    {"studies"},
    {"reporting"},
    {"tuning"},
    {"integrations"},
    {"cli"},
]
FLOOR = {room: height for height, row in enumerate(ROWS) for room in row}
FILES = sorted(p for p in SOURCE.rglob("*.py") if p.parent != SOURCE or p.stem not in {"__init__", "__main__"})


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """Every decaylab room that a file names in an import, also inside functions."""
    package = ("decaylab", *path.relative_to(SOURCE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "decaylab" else [module]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("decaylab.") and "__" not in name}
    return found


def test_every_room_has_a_floor():
    assert {_room(p) for p in FILES} <= set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_arrows_point_down(path):
    room = _room(path)
    for other in _imports(path) - {room}:
        assert FLOOR.get(other, 99) < FLOOR[room], f"{room} must not import {other}"
