"""No circle of imports between files: at import time, inside functions, or through a package's lazy names."""

import ast
import graphlib
from pathlib import Path

import pytest

import decaylab

SOURCE = Path(decaylab.__file__).parent


def _name(path, root):
    parts = ("decaylab", *path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _statements(node):
    """Every node of a file except what only type checkers see."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.orelse:
                yield from _statements(statement)
        else:
            yield from _statements(child)


class Imports:
    """The files that each file imports."""

    def __init__(self, root):
        self.files = {_name(path, root): path for path in root.rglob("*.py")}
        self.lazy = {name: self._stub(name) for name, path in self.files.items() if path.with_suffix(".pyi").exists()}

    def _stub(self, name):
        tree = ast.parse(self.files[name].with_suffix(".pyi").read_text())
        found = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                base = f"{name}.{node.module}" if node.module else name
                found |= {each.name: base if node.module else f"{name}.{each.name}" for each in node.names}
        return found

    def _meant(self, module, name):
        """The file that ``from module import name`` reaches."""
        if f"{module}.{name}" in self.files:
            return f"{module}.{name}"
        target = self.lazy.get(module, {}).get(name)
        return module if target is None else self._meant(target, name)

    def of(self, module):
        if module in self.lazy:  # imports nothing until it is asked for a name
            return set()
        found = set()
        for node in _statements(ast.parse(self.files[module].read_text())):
            if isinstance(node, ast.Import):
                found |= {each.name for each in node.names} & self.files.keys()
            elif isinstance(node, ast.ImportFrom) and node.module in self.files:
                found |= {self._meant(node.module, each.name) for each in node.names}
        return found - {module}

    def circle(self):
        try:
            graphlib.TopologicalSorter({name: self.of(name) for name in self.files}).prepare()
        except graphlib.CycleError as error:
            return error.args[1]
        return None


def test_no_file_imports_itself_through_others():
    assert Imports(SOURCE).circle() is None


@pytest.mark.parametrize("lazily", ["", "def f():\n    "])
@pytest.mark.parametrize("written", ["from decaylab.a.one import x", "from decaylab.a import x"])
def test_a_circle_is_seen(tmp_path, lazily, written):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "__init__.py").write_text("")
    (tmp_path / "a" / "__init__.pyi").write_text("from .one import x as x\n")
    (tmp_path / "a" / "one.py").write_text("from decaylab.b import y\nx = 1\n")
    (tmp_path / "b.py").write_text(f"{lazily}{written}\ny = 1\n")
    assert set(Imports(tmp_path).circle()) == {"decaylab.a.one", "decaylab.b"}
    (tmp_path / "b.py").write_text(f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {written}\ny = 1\n")
    assert Imports(tmp_path).circle() is None
