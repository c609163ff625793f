"""What the README says is what the project does: its table, its tree and its code."""

import re
import runpy
from pathlib import Path

import pytest

import decaylab

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PACKAGE = Path(decaylab.__file__).parent


def test_the_table_of_experiments_is_that_of_the_results():
    lines = runpy.run_path(str(ROOT / "results" / "table.py"))["rows"]()
    assert "\n".join(lines) in README, "run `python results/table.py` and put its table into the README"


def test_the_tree_names_every_room():
    tree = README[README.index("## The tree") :]
    rooms = {p.name for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__main__.py"}
    rooms |= {"benchmarks", "docs", "examples", "results", "tests"}
    missing = [room for room in sorted(rooms) if room.removesuffix(".py") not in tree]
    assert not missing


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.S))
def test_the_code_runs(block, capsys):
    exec(compile(block, "README.md", "exec"), {})
